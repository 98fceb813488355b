"""What Ray Data costs over a bare loop: the same worker class, the same blocks.

    python benchmarks/scale/ray_data.py SQUAD.json --rows 20000 --actors 2 --threads 1

The bare loop is as many actors with as many threads, which take blocks in turn. What an actor does
before its first block is left out.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import ray
from texts import mixed_texts

from cpuaccel.cli.models.source import demo_folder
from cpuaccel.integrations import ray as accelerated

BLOCK = 2000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("squad", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    texts = mixed_texts(arguments.squad, arguments.rows)
    ray.init(num_cpus=arguments.actors * arguments.threads, include_dashboard=False)
    ray.data.DataContext.get_current().wait_for_min_actors_s = 120
    folder = str(demo_folder())
    blocks = [texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK)]

    @ray.remote(num_cpus=arguments.threads)
    class Loop:
        """The bare loop, in a process of its own."""

        def __init__(self) -> None:
            self.embed = accelerated.Embed(folder)

        def wait(self) -> None:
            """Return when the model is loaded."""

        def run(self, first: int) -> None:
            for block in blocks[first :: arguments.actors]:
                self.embed({"text": np.array(block, dtype=object)})

    class Timed(accelerated.Embed):
        """Tells when blocks begin and end, to leave the start of the actor out."""

        def __call__(self, batch):
            begun = time.time()
            out = super().__call__(batch)
            count = len(batch["text"])
            return {**out, "begun": np.full(count, begun), "ended": np.full(count, time.time())}

    ratios = []
    for _ in range(arguments.rounds):
        loops = [Loop.remote() for _ in range(arguments.actors)]
        ray.get([loop.wait.remote() for loop in loops])
        start = time.perf_counter()
        ray.get([loop.run.remote(first) for first, loop in enumerate(loops)])
        bare = time.perf_counter() - start
        for loop in loops:
            ray.kill(loop)
        items = [{"text": text} for text in texts]
        ds = ray.data.from_items(items, override_num_blocks=len(blocks))
        out = ds.map_batches(
            Timed,
            fn_constructor_kwargs={"model": folder},
            compute=ray.data.ActorPoolStrategy(size=arguments.actors),
            num_cpus=arguments.threads,
            batch_size=BLOCK,
        ).materialize()
        begun, ended = out.min("begun"), out.max("ended")
        taken = ended - begun
        ratios.append(taken / bare)
        print(f"bare loop {len(texts) / bare:.0f} rows/s, Ray Data {len(texts) / taken:.0f} rows/s")
    print(f"Ray Data takes {statistics.median(ratios):.3f} of the bare loop's time")


if __name__ == "__main__":
    main()
