"""Evaluate a translation model, optionally optimized by cpuaccel."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.exits import run


def main() -> None:
    """Evaluate, predict, or both."""
    from translation.evaluation import evaluate

    evaluate()


if __name__ == "__main__":
    run(main)
