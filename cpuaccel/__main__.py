"""``python -m cpuaccel``."""

from cpuaccel.cli.main import main

if __name__ == "__main__":
    main()
