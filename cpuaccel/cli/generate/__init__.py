"""``cpuaccel generate``: command, model and prompt, stream."""
