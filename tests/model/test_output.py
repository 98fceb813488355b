from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cpuaccel.errors import BackendError
from cpuaccel.model.output import Structure, leaves, tensors


class Pair(NamedTuple):
    first: object
    second: object


@dataclass
class Record:
    logits: object
    states: object = None


tensor = st.integers(0, 99).map(torch.tensor)
constant = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
keys = st.text("ab1-", min_size=1, max_size=3) | st.integers(0, 2)
outputs = st.recursive(
    tensor | constant,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Record, inner, inner)
    ),
    max_leaves=8,
)


@given(outputs)
def test_what_is_taken_apart_is_put_together_again(output: object) -> None:
    found = [leaf.tensor for leaf in leaves(output)]
    restored = Structure.from_output(output).restore(iter(found))
    assert restored == output or repr(restored) == repr(output)
    assert type(restored) is type(output)


@given(outputs)
def test_tensors_and_leaves_agree(output: object) -> None:
    assert [id(t) for t in tensors(output)] == [id(leaf.tensor) for leaf in leaves(output)]


def test_paths_say_where_a_tensor_stands() -> None:
    one = torch.ones(1)
    output = {"logits": one, "states": (one, Pair(one, None))}
    assert [leaf.path for leaf in leaves(output)] == ["logits", "states.0", "states.1.0"]
    assert [leaf.path for leaf in leaves(one)] == ["output"]


def test_an_ordered_mapping_keeps_its_type() -> None:
    output = OrderedDict(a=torch.ones(1), b=None)
    restored = Structure.from_output(output).restore(iter(tensors(output)))
    assert type(restored) is OrderedDict
    assert list(restored) == ["a", "b"]


def test_what_holds_more_than_tensors_is_refused_by_name() -> None:
    class Cache:
        pass

    with pytest.raises(BackendError) as caught:
        Structure.from_output({"logits": torch.ones(1), "past": Cache()})
    assert caught.value.reason == "forward returns a Cache, which holds more than tensors"
    assert "use_cache=False" in caught.value.remedy


def test_a_model_output_stays_one() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs", reason="needs transformers")
    output = outputs.BaseModelOutput(
        last_hidden_state=torch.ones(1), hidden_states=(torch.ones(1), torch.zeros(1))
    )
    restored = Structure.from_output(output).restore(iter(tensors(output)))
    assert type(restored) is outputs.BaseModelOutput
    assert isinstance(restored, dict)
    assert list(restored) == ["last_hidden_state", "hidden_states"]
    assert [leaf.path for leaf in leaves(output)] == [
        "last_hidden_state",
        "hidden_states.0",
        "hidden_states.1",
    ]


def test_a_model_output_and_a_dict_can_be_told_apart() -> None:
    assert Structure.from_output({"a": torch.ones(1)}) != Structure.from_output(
        OrderedDict(a=torch.ones(1))
    )
