"""The workspace of attention: cached for each thread, and usable in every mode."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as stock

from cpuaccel_plugins.onednn.attention import workspace as workspace_module
from cpuaccel_plugins.onednn.attention.attend import PRODUCTS, attend, split_operands
from cpuaccel_plugins.onednn.attention.workspace import Sizes, workspace

SIZES = Sizes(2, 5, 5, 4, torch.float32)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_module, "_cache", workspace_module._WorkspaceCache())


def addresses(sizes: Sizes) -> list[int]:
    return [part.scores.data_ptr() for part in workspace(sizes).parts]


def check(joint: torch.Tensor) -> None:
    """Compare joint operands and their three parts with the stock operator."""
    query, key, value = split_operands(joint)
    expected = stock(query, key, value, scale=0.5).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attend(joint, None, 0.5, PRODUCTS), expected)
    torch.testing.assert_close(attend((query, key, value), None, 0.5, PRODUCTS), expected)


def test_it_is_cached_for_each_size() -> None:
    first = workspace(SIZES)
    assert workspace(SIZES._replace(keys=3)) is not first
    assert workspace(SIZES) is first


def test_all_sizes_share_the_memory_of_the_largest() -> None:
    short = workspace(SIZES)
    long = workspace(SIZES._replace(queries=50, keys=50))
    assert workspace(SIZES) is not short
    (memory,) = {part.query.untyped_storage().data_ptr() for part in long.parts}
    assert workspace(SIZES).parts[0].query.untyped_storage().data_ptr() == memory


@pytest.mark.parametrize("name", ["MOST_CACHED_BYTES", "MOST_CACHED_SIZES"])
def test_the_cache_is_bounded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_module, name, 1)
    first = workspace(SIZES)
    workspace(SIZES._replace(keys=3))
    assert workspace(SIZES) is not first


def test_every_thread_has_its_own() -> None:
    mine = addresses(SIZES)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(addresses, SIZES).result()
    assert found
    assert not set(found) & set(mine)


def test_threads_get_their_own_outputs() -> None:
    joints = [torch.randn(1, 40, 3, 2, 8) for _ in range(4)]
    expected = [attend(joint, None, 0.5, PRODUCTS) for joint in joints]

    def right(place: int) -> bool:
        return all(
            torch.equal(attend(joints[place], None, 0.5, PRODUCTS), expected[place])
            for _ in range(50)
        )

    with ThreadPoolExecutor(len(joints)) as pool:
        assert list(pool.map(right, range(len(joints)))) == [True] * len(joints)


def test_a_workspace_from_inference_mode_is_usable_outside() -> None:
    with torch.inference_mode():
        check(torch.randn(1, 5, 3, 2, 4))
    with torch.no_grad():
        check(torch.randn(1, 5, 3, 2, 4))
    with torch.inference_mode():
        check(torch.randn(1, 5, 3, 2, 4))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("heads_together", [1, 2, 3])
def test_heads_in_parts(batch: int, heads_together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_module, "SCORE_BYTES", heads_together * 7 * 7 * 4)
    assert len(workspace(Sizes(3, 7, 7, 4, torch.float32)).parts) == -(-3 // heads_together)
    check(torch.randn(batch, 7, 3, 3, 4))
