"""What Ray Data costs over a bare loop: the same worker class, the same blocks.

python benchmarks/scale/ray_data.py SQUAD.json --rows 20000 --threads 2
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
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    texts = mixed_texts(arguments.squad, arguments.rows)
    ray.init(num_cpus=arguments.threads, include_dashboard=False)
    folder = str(demo_folder())
    blocks = [texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK)]

    @ray.remote(num_cpus=arguments.threads)
    class Loop:
        """The bare loop, in a process of its own."""

        def __init__(self) -> None:
            self.embed = accelerated.Embed(folder)

        def run(self) -> float:
            begun = time.perf_counter()
            for block in blocks:
                self.embed({"text": np.array(block, dtype=object)})
            return time.perf_counter() - begun

    class Timed(accelerated.Embed):
        """Tells when blocks begin and end, to leave the start of the actor out."""

        def __call__(self, batch):
            begun = time.time()
            out = super().__call__(batch)
            count = len(batch["text"])
            return {**out, "begun": np.full(count, begun), "ended": np.full(count, time.time())}

    ratios = []
    for _ in range(arguments.rounds):
        loop = Loop.remote()
        bare = ray.get(loop.run.remote())
        ray.kill(loop)
        ds = ray.data.from_items([{"text": text} for text in texts], override_num_blocks=10)
        out = ds.map_batches(
            Timed,
            fn_constructor_kwargs={"model": folder},
            compute=ray.data.ActorPoolStrategy(size=1),
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
