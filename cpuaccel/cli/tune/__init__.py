"""``cpuaccel tune``."""
