"""Ray Data on a real cluster of three nodes: nothing lost, nothing twice, and in order."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ray = pytest.importorskip("ray")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

from cpuaccel.integrations import ray as accelerated  # noqa: E402
from tests.caches import with_kernels  # noqa: E402
from tests.conftest import Python  # noqa: E402
from tests.integrations.parts import TEXTS  # noqa: E402
from tests.integrations.ray.conftest import ROOT, add_node  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")

CHEAP = ["jit"]
"""A pipeline that is built in a moment."""


def texts(count: int) -> list[str]:
    return [
        " ".join(TEXTS[(n + k) % 5] for k in range(1 + n * 7 % 4)) + f" {n}" for n in range(count)
    ]


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "text": text} for number, text in enumerate(texts(count))]


def embed(ds: Any, model: Any, actors: int = 2, **options: Any) -> Any:
    return ds.map_batches(
        accelerated.Embed,
        fn_constructor_kwargs={"model": model, "to": "embedding", "tokens": 256, **options},
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
        num_cpus=1,
        batch_size=32,
    )


def assert_all_right(rows: list[dict[str, Any]], count: int, folder: Path) -> None:
    assert sorted(row["id"] for row in rows) == list(range(count))
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts(count))
    for row in rows:
        assert row["error"] is None
        np.testing.assert_allclose(row["embedding"], expected[row["id"]], atol=1e-5)


def test_embeddings_on_several_nodes_from_one_build(
    cluster: Cluster, folders: dict[str, Path], caches: Path
) -> None:
    model = accelerated.share(folders["embeddings"], pipeline=CHEAP)
    out = embed(ray.data.from_items(rows_of(200), override_num_blocks=8), model).materialize()
    assert_all_right(out.take_all(), 200, folders["embeddings"])
    found = accelerated.report(out)
    assert (found.rows, found.served_by, found.failed) == (200, {"jit": 200}, 0)
    assert not found.alarm
    built = [path.parents[2].name for path in caches.glob("*/ray/*/optimized/pipeline.toml")]
    assert built  # each node that had an actor unpacked it, once


def test_the_cache_keeps_only_what_is_used(
    cluster: Cluster, folders: dict[str, Path], caches: Path
) -> None:
    for _ in range(2):
        model = accelerated.share(folders["embeddings"], pipeline=CHEAP)
        embed(ray.data.from_items(rows_of(20)), model, actors=1).materialize()
    kept = [path for path in caches.glob("*/ray/*") if path.is_dir()]
    assert 1 <= len(kept) <= len([*caches.iterdir()])  # at most the last one of each node


def test_an_alarm_for_fallbacks(
    cluster: Cluster, folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    ds = ray.data.from_items([*rows_of(20), {"id": 20, "text": None}])
    out = embed(ds, folders["embeddings"], actors=1, pipeline=["ipex"]).materialize()
    found = accelerated.report(out)
    assert (found.rows, found.fallbacks, found.failed) == (21, 20, 1)
    assert found.served_by == {"fallback:not_applied": 20}
    assert "20 of 20 rows" in found.alarm
    assert found.alarm in caplog.text


PLAN = """
import json, sys
import ray
from cpuaccel.integrations import ray as accelerated

model, texts = sys.argv[1:]
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
ds = ray.data.from_items([{"text": text} for text in json.loads(texts)])
found = accelerated.plan(ds, model, sample=20, tokens=(64, 256), pipeline=["jit"])
rows = [[each.actors, each.threads, each.tokens, each.rows_per_second] for each in found.choices]
print(json.dumps([[found.actors, found.threads, found.tokens], rows]))
"""


def test_a_plan_for_a_node(
    folders: dict[str, Path], python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a process of its own: a driver that leaves the cluster and comes back may lose its actors.
    arguments = str(folders["embeddings"]), json.dumps(texts(40))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    done = python(PLAN, *arguments, path=(ROOT, ROOT / "plugins"))
    chosen, rows = json.loads(done.stdout.splitlines()[-1])
    assert {tuple(row[:3]) for row in rows} == {(2, 1, 64), (2, 1, 256), (1, 2, 64), (1, 2, 256)}
    assert chosen == max(rows, key=lambda row: row[3])[:3]


@ray.remote(max_restarts=0)
class Spy:
    """Counts and ends workers from inside the cluster."""

    def __init__(self) -> None:
        self.workers: dict[int, str] = {}

    def began(self, process: int, node: str) -> None:
        self.workers[process] = node

    def seen(self) -> dict[int, str]:
        return self.workers


class Watched(accelerated.Embed):
    """Tells where it runs, and takes its time."""

    def __call__(self, batch: dict[str, Any], spy: Any) -> dict[str, Any]:
        node = ray.get_runtime_context().get_node_id()
        ray.get(spy.began.remote(os.getpid(), node))
        time.sleep(0.2)
        return super().__call__(batch)


def begin(ds: Any, model: Any, out: Path, spy: Any) -> None:
    ds.map_batches(
        Watched,
        fn_kwargs={"spy": spy},
        fn_constructor_kwargs={"model": model, "to": "embedding"},
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=2,
        batch_size=16,
    ).write_parquet(str(out))


@pytest.mark.parametrize("victim", ["worker", "node"])
def test_a_killed_worker_or_node_loses_nothing(
    cluster: Cluster, folders: dict[str, Path], caches: Path, tmp_path: Path, victim: str
) -> None:
    from threading import Thread

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    spy = Spy.options(num_cpus=0, scheduling_strategy=here).remote()
    model = accelerated.share(folders["embeddings"], pipeline=CHEAP)
    ds = ray.data.from_items(rows_of(480), override_num_blocks=30)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            begin(ds, model, tmp_path / "out", spy)
        except BaseException as error:
            failures.append(error)

    job = Thread(target=run)
    job.start()
    while not (seen := ray.get(spy.seen.remote())) and job.is_alive():
        time.sleep(0.05)
    assert not failures
    process, node_id = next(iter(seen.items()))
    if victim == "worker":
        os.kill(process, signal.SIGKILL)
    else:
        node = next(n for n in cluster.worker_nodes if n.node_id == node_id)
        cluster.remove_node(node, allow_graceful=False)
        add_node(cluster, with_kernels(caches / "third"))
    job.join()
    assert not failures, failures
    assert_all_right(pq.read_table(tmp_path / "out").to_pylist(), 480, folders["embeddings"])
    assert len(ray.get(spy.seen.remote())) > len(seen)


JOB = """
import sys, time
import ray
from cpuaccel.integrations import ray as accelerated

address, source, out, checkpoint, model, seconds = sys.argv[1:]

class Slow(accelerated.Embed):
    def __call__(self, batch):
        time.sleep(float(seconds))
        return super().__call__(batch)

ray.init(address=address, log_to_driver=False)
ray.data.DataContext.get_current().checkpoint_config = ray.data.checkpoint.CheckpointConfig(
    id_column="id", checkpoint_path=checkpoint, delete_checkpoint_on_success=False
)
ray.data.read_parquet(source).repartition(target_num_rows_per_block=20).map_batches(
    Slow,
    fn_constructor_kwargs={"model": model, "pipeline": ["jit"], "to": "embedding"},
    compute=ray.data.ActorPoolStrategy(size=2),
    num_cpus=1,
    batch_size=20,
).write_parquet(out)
"""


def test_a_killed_job_is_resumed_from_its_parquet(
    cluster: Cluster, folders: dict[str, Path], tmp_path: Path
) -> None:
    source, out, checkpoint = (tmp_path / name for name in ("in.parquet", "out", "checkpoint"))
    pq.write_table(pa.Table.from_pylist(rows_of(240)), source)
    paths = [str(source), str(out), str(checkpoint), str(folders["embeddings"])]
    command = [sys.executable, "-c", JOB, cluster.address, *paths]
    first = subprocess.Popen([*command, "1"], stderr=subprocess.PIPE)
    while len(list(checkpoint.rglob("*.parquet"))) < 2 and first.poll() is None:
        time.sleep(0.05)
    assert first.poll() is None, first.communicate()
    first.kill()
    first.communicate()
    done = pq.read_table(checkpoint).num_rows
    assert 0 < done < 240
    subprocess.run([*command, "0"], check=True, capture_output=True)
    assert_all_right(pq.read_table(out).to_pylist(), 240, folders["embeddings"])
