"""A pool of real processes: outputs, cores, and processes that end."""

import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

import cpuaccel
from cpuaccel.errors import ArtifactError, ClosedError, CpuaccelError, WorkerError
from cpuaccel.model.signature import Inputs
from cpuaccel.processes.pinned import PinnedProcess, core_sets
from cpuaccel.processes.worker import Folder, serve
from tests.models import encoder
from tests.required import requires

pytestmark = requires("torch>=2.6")

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ["jit"]


def batches(count: int) -> list[Inputs]:
    return [
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for ids in (torch.full((2, 8 + number), 5 + number) for number in range(count))
    ]


@pytest.fixture(scope="module")
def fast() -> cpuaccel.OptimizedModel:
    torch.manual_seed(0)
    return cpuaccel.optimize(encoder("bert"), BACKENDS, example_inputs=batches(1)[0])


@pytest.fixture(scope="module")
def folder(fast: cpuaccel.OptimizedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model"
    fast.save(path)
    return path


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[cpuaccel.ProcessPool]:
    with cpuaccel.ProcessPool(folder, processes=1) as pool:
        yield pool


def test_outputs_are_those_of_the_model_in_order(fast: cpuaccel.OptimizedModel) -> None:
    with cpuaccel.ProcessPool(fast, processes=1, threads=1) as pool:
        found = list(pool.map(batches(9)))
        last = pool.submit(*batches(1)[0].values()).result()
    assert len(found) == 9
    for batch, output in zip(batches(9), found):
        expected = fast.original(**batch)
        assert type(output) is type(expected)
        torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state)
    torch.testing.assert_close(last.last_hidden_state, found[0].last_hidden_state)
    assert pool.calls == {"optimized": 10}


@requires("cores: 2")
def test_processes_have_cores_of_their_own(folder: Path) -> None:
    allowed = os.sched_getaffinity(0)
    with cpuaccel.ProcessPool(folder, processes=2, threads=1) as pool:
        list(pool.map(batches(4)))
        expected = [process.cores for process in pool.processes]
        cores = [psutil.Process(process.pid).cpu_affinity() for process in pool.processes]
        threads = [
            os.sched_getaffinity(thread.id)
            for process in pool.processes
            for thread in psutil.Process(process.pid).threads()
        ]
    assert [tuple(each) for each in cores] == expected
    assert len({core for each in cores for core in each}) == 2
    assert all(len(each) == 1 for each in threads)
    assert os.sched_getaffinity(0) == allowed


def test_the_split_of_a_search_is_used(fast: cpuaccel.OptimizedModel) -> None:
    from cpuaccel.processes.pool import split
    from cpuaccel.tuning.candidate import ORIGINAL
    from cpuaccel.tuning.decisions.result import Instances, Tuning

    instances = (Instances(1, 8, 10.0), Instances(4, 2, 30.0), Instances(8, 1, 20.0))
    tuning = Tuning(target="throughput", winner=ORIGINAL, why="", instances=instances)
    cores = cpuaccel.host().cores
    assert split(fast, None, None) == (cores, 1)
    fast.report.tuning = tuning
    try:
        assert split(fast, None, None) == (4, 2)
        assert split(fast, 1, None) == (1, cores)
    finally:
        fast.report.tuning = None


def test_a_killed_process_fails_its_call_and_is_replaced(pool: cpuaccel.ProcessPool) -> None:
    (process,) = pool.processes
    os.kill(process.pid, signal.SIGSTOP)
    call, waiting = pool.submit(**batches(1)[0]), pool.submit(**batches(1)[0])
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"SIGKILL.* during the call"):
        call.result()
    assert waiting.result().last_hidden_state.shape[:2] == (2, 8)
    assert pool.processes[0].pid != process.pid


def test_a_process_killed_between_calls_costs_no_call(
    pool: cpuaccel.ProcessPool, caplog: pytest.LogCaptureFixture
) -> None:
    pool.submit(**batches(1)[0]).result()
    before = pool.calls
    os.kill(pool.processes[0].pid, signal.SIGKILL)
    multiprocessing.connection.wait([pool.processes[0].sentinel])
    pool.submit(**batches(1)[0]).result()
    assert pool.calls - before == {"optimized": 1}
    assert "SIGKILL" in caplog.text


def test_what_the_model_raises_is_raised(pool: cpuaccel.ProcessPool) -> None:
    with pytest.raises(ValueError, match="input_ids"):
        pool.submit(attention_mask=torch.ones(1, 4)).result()
    assert pool.submit(**batches(1)[0]).result() is not None


def test_a_batch_of_another_type_is_refused(pool: cpuaccel.ProcessPool) -> None:
    with pytest.raises(CpuaccelError, match="got str"):
        list(pool.map("texts"))


def test_a_folder_that_can_not_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        cpuaccel.ProcessPool(tmp_path / "missing", processes=1)


def end() -> torch.nn.Module:
    os._exit(7)


def test_a_process_that_ends_while_loading(folder: Path) -> None:
    with pytest.raises(WorkerError, match="exited with code 7 while it loaded"):
        cpuaccel.ProcessPool(folder, processes=1, make_model=end)


def test_a_model_of_a_class_of_its_own(tmp_path: Path) -> None:
    make = functools.partial(torch.nn.Linear, 4, 2)
    torch.manual_seed(0)
    model = make().eval()
    cpuaccel.optimize(model, BACKENDS, example_inputs=torch.ones(3, 4)).save(tmp_path / "saved")
    with cpuaccel.ProcessPool(tmp_path / "saved", processes=1, make_model=make) as pool:
        (found,) = pool.map([torch.ones(3, 4)])
    torch.testing.assert_close(found, model(torch.ones(3, 4)))


@pytest.mark.parametrize(
    ("processes", "threads", "wrong"), [(0, 1, ">= 1"), (1, 0, ">= 1"), (4096, 2, "8192 cores")]
)
def test_a_split_that_can_not_be(folder: Path, processes: int, threads: int, wrong: str) -> None:
    with pytest.raises(CpuaccelError, match=wrong):
        cpuaccel.ProcessPool(folder, processes=processes, threads=threads)


def test_closing_computes_what_was_submitted(folder: Path) -> None:
    with cpuaccel.ProcessPool(folder, processes=1) as pool:
        calls = [pool.submit(**batch) for batch in batches(5)]
        identities = [process.pid for process in pool.processes]
    assert [call.result().last_hidden_state.shape[1] for call in calls] == [8, 9, 10, 11, 12]
    assert not any(map(psutil.pid_exists, identities))
    with pytest.raises(ClosedError):
        pool.submit(**batches(1)[0])


@requires("cores: 2", "transformers>=5")
def test_one_process_builds_for_another_number_of_threads(tmp_path: Path) -> None:
    batch = batches(1)[0]
    fast = cpuaccel.optimize(encoder("bert"), ["onednn"], example_inputs=batch, strict=True)
    saved, again = tmp_path / "saved", tmp_path / "again"
    fast.save(saved)
    threads = 2 if torch.get_num_threads() == 1 else 1
    (cores,) = core_sets(1, threads)
    here, there = multiprocessing.Pipe()
    process = PinnedProcess(cores, target=serve, args=(there, None, threads), daemon=True)
    process.start()
    there.close()
    here.send(Folder(str(saved), str(again)))
    assert here.recv().error is None
    here.close()
    process.join()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert "threads" in cpuaccel.load(saved).report.not_restored
        assert not cpuaccel.load(again).report.not_restored
    finally:
        torch.set_num_threads(before)


@requires("transformers>=5")
def test_generating(tmp_path: Path) -> None:
    from tests.cli.generate.models import make_llama

    model = make_llama().eval()
    prompt = {"input_ids": torch.tensor([[5, 6, 7]])}
    arguments = {**prompt, "max_new_tokens": 4, "do_sample": False}
    fast = cpuaccel.optimize(model, ["onednn"])
    expected = model.generate(**arguments)
    assert torch.equal(fast.generate(**arguments), expected)
    with cpuaccel.ProcessPool(fast, processes=1) as pool:
        assert torch.equal(pool.submit_generate(**arguments).result(), expected)


PROGRAM = """
import sys, time
import cpuaccel
if __name__ == "__main__":
    pool = cpuaccel.ProcessPool(sys.argv[1], processes=1)
    print(pool.processes[0].pid, flush=True)
    time.sleep(600)
"""


def test_processes_end_with_a_killed_program(folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    started = subprocess.Popen(
        [sys.executable, str(program), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    identity = int(started.stdout.readline())
    started.kill()
    started.communicate()
    while psutil.pid_exists(identity):  # the test's timeout ends the waiting
        time.sleep(0.05)
