"""Try random modules with backends until a number of calls was compared: no output may differ.

Usage, in the project's folder: ``python -m benchmarks.soundness 5000 jit openvino onnxruntime``.
"""

import logging
import sys
from collections import Counter

from tests.core.test_soundness import try_module


def main(combinations: int, backends: list[str]) -> int:
    """Print each wrong output and the totals; return how many outputs were wrong."""
    logging.disable(logging.CRITICAL)
    counted: Counter[str] = Counter()
    seed, wrong = 0, 0
    while counted["combinations"] < combinations:
        for backend in backends:
            for fault in try_module(seed, backend, counted):
                wrong += 1
                print(fault, flush=True)
        seed += 1
    print(f"{dict(counted)}, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]), sys.argv[2:])))
