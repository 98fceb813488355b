"""``cpuaccel bench``."""
