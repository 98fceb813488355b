"""Tensors between processes: the same values, and no more than they show of their storage."""

import os
from collections.abc import Callable

import pytest
import torch

from cpuaccel.processes.transfer import Buffers, map_memory, pack, unpack, write_memory


def as_bytes(value: object) -> object:
    return unpack(pack(value))


def in_memory(value: object) -> object:
    apart: Buffers = []
    data = pack(value, apart)
    descriptor, sizes = write_memory(apart)
    with os.fdopen(descriptor, "rb"):
        views = map_memory(descriptor, sizes)
    return unpack(data, views)


WAYS: dict[str, Callable[[object], object]] = {"bytes": as_bytes, "memory": in_memory}

TENSORS = {
    "numbers": torch.arange(6.0).reshape(2, 3),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "scalar": torch.tensor(3),
    "empty": torch.empty(0, 4),
    "bool": torch.tensor([True, False]),
    "bfloat16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "complex": torch.tensor([1 + 2j]).conj(),
    "parameter": torch.nn.Parameter(torch.ones(2)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_stay_the_same(name: str, way: str) -> None:
    tensor = TENSORS[name]
    found = WAYS[way](tensor)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == tensor.dtype
    assert found.shape == tensor.shape
    assert torch.equal(found, tensor)


def test_contents_apart_stay_in_their_places() -> None:
    tensors = [*TENSORS.values(), torch.arange(100_000)]
    found = in_memory({"a": tensors, "b": 3})
    assert isinstance(found, dict)
    assert found["b"] == 3
    assert all(map(torch.equal, found["a"], tensors))


def test_a_view_takes_its_own_size() -> None:
    view = torch.zeros(10_000_000)[:10]
    assert len(pack(view)) < 1000
    apart: Buffers = []
    assert len(pack(view, apart)) < 1000
    assert sum(len(buffer.raw()) for buffer in apart) == 40


@pytest.mark.parametrize("way", WAYS)
def test_what_was_received_can_be_written_to(way: str) -> None:
    found = WAYS[way](torch.zeros(3))
    assert isinstance(found, torch.Tensor)
    found += 1
    assert found.tolist() == [1, 1, 1]
