"""Try random modules with pipelines until a number of calls was compared: no output may differ.

Usage, in the project's folder: ``python -m benchmarks.soundness 5000 jit openvino ipex,jit``.
``--first 1000`` tries other modules. Nothing is audited: an audit would hide a wrong output.
"""

import argparse
import logging
import sys
from collections import Counter

from tests.core.test_soundness import try_module


def main(number: int, pipelines: list[str], first: int) -> int:
    """Print each wrong output and the totals; return how many outputs were wrong."""
    logging.disable(logging.CRITICAL)
    counted = {pipeline: Counter[str]() for pipeline in pipelines}
    seed = first
    try:
        while sum(counts["calls"] for counts in counted.values()) < number:
            for pipeline, counts in counted.items():
                faults = try_module(seed, pipeline, counts, audit=False)
                counts["wrong"] += len(faults)
                print(*faults, sep="\n", end="\n" if faults else "", flush=True)
            seed += 1
    finally:  # also of a run that was interrupted
        print(f"seeds {first} to {seed - 1}")
        for pipeline, counts in counted.items():
            print(f"{pipeline}: {', '.join(f'{n} {name}' for name, n in counts.items())}")
    return sum(counts["wrong"] for counts in counted.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", type=int)
    parser.add_argument("pipelines", nargs="+")
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(bool(main(arguments.number, arguments.pipelines, arguments.first)))
