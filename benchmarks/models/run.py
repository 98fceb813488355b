"""Try models of many packages with each backend, and write the table in docs/models.md.

    python benchmarks/models/run.py [--case NAME ...] [--pipeline NAME ...] [--results FILE]
        [--limit 240] [--again] [--write-docs]

Run it with the environment that ``make-venv.sh`` makes. Each cell (a model with a pipeline) runs in
a process of its own, one after the other, with one thread. Results are kept in a JSON file; a cell
that has one is not run again without ``--again``. Exits with 1 if an answer was wrong, or if a
process crashed or did not end in time.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

from cell import CASES, PIPELINES, Result, try_cell
from table import write_page

FOLDER = Path(__file__).parent
FAULTS = ("WRONG", "CRASHED", "TIMED OUT")

context = multiprocessing.get_context("forkserver")


def run_cell(case: str, pipeline: str, limit: float) -> Result:
    """Run one cell in its own process, for at most ``limit`` seconds."""
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile("r+", errors="replace") as output:
        process = context.Process(target=_child, args=(sender, output.name, case, pipeline))
        process.start()
        sender.close()
        process.join(limit)
        if process.is_alive():
            process.kill()
            process.join()
            return Result(case, pipeline, "TIMED OUT", reasons=[f"did not end in {limit:.0f} s"])
        if process.exitcode == 0:
            return receiver.recv()
        reason = (output.read().strip().splitlines() or ["no output"])[-1]
        return Result(
            case, pipeline, "CRASHED", reasons=[f"exit code {process.exitcode}: {reason}"]
        )


def _child(sender: "Connection[Result, None]", output: str, case: str, pipeline: str) -> None:
    file = os.open(output, os.O_WRONLY)
    for stream in (1, 2):  # packages and engines print what they like
        os.dup2(file, stream)
    sender.send(try_cell(case, pipeline))


def main() -> int:
    """Run the cells that have no result, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--pipeline", action="append", help="default: all")
    parser.add_argument("--results", type=Path, default=Path("models.json"))
    parser.add_argument("--limit", type=float, default=240.0, help="seconds for one cell")
    parser.add_argument("--again", action="store_true", help="run cells that have a result, too")
    parser.add_argument("--write-docs", action="store_true", help="write docs/models.md")
    options = parser.parse_args()
    results: dict[tuple[str, str], Result] = {}
    if options.results.exists():
        stored = [Result(**entry) for entry in json.loads(options.results.read_text())]
        results = {(result.case, result.pipeline): result for result in stored}
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(FOLDER), os.getenv("PYTHONPATH")]))
    context.set_forkserver_preload(["preload"])
    for pipeline in options.pipeline or PIPELINES:
        for case in options.case or CASES:
            if (case, pipeline) in results and not options.again:
                continue
            result = results[case, pipeline] = run_cell(case, pipeline, options.limit)
            served = f"{result.served} of {result.calls}, {result.difference:.1e}"
            print(f"{case:40} {pipeline:24} {result.status:9} {served}", flush=True)
            for reason in result.reasons:
                print(f"    {' '.join(reason.split())[:300]}", flush=True)
            options.results.write_text(json.dumps([asdict(r) for r in results.values()], indent=1))
    if options.write_docs:
        write_page(results)
    faults = [result for result in results.values() if result.status in FAULTS]
    for fault in faults:
        command = f'{sys.executable} {FOLDER / "cell.py"} "{fault.case}" {fault.pipeline}'
        print(f"{fault.status}: {command}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
