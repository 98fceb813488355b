from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cpuaccel.errors import BackendError
from cpuaccel.model.output import Structure, leaves, require_tensors, tensors


class Pair(NamedTuple):
    first: object
    second: object


@dataclass
class Record:
    logits: object
    states: object = None


@dataclass(frozen=True)
class Frozen:
    logits: object


@dataclass(slots=True)
class Slotted:
    logits: object


@dataclass
class Computed:
    """Its constructor doesn't take its second field."""

    logits: object
    doubled: object = field(init=False)

    def __post_init__(self) -> None:
        self.doubled = [self.logits, self.logits]


@dataclass
class DiffusersOutput(OrderedDict[str, object]):
    """A dict and a dataclass at once, as diffusers' outputs are."""

    sample: object = None
    other: object = None

    def __post_init__(self) -> None:
        for name in ("sample", "other"):
            if (value := getattr(self, name)) is not None:
                super().__setitem__(name, value)


class Named(Mapping[str, object]):
    """A mapping whose constructor takes keywords."""

    def __init__(self, **members: object) -> None:
        self._members = members

    def __getitem__(self, key: str) -> object:
        return self._members[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"Named({self._members})"


class Sequence(list[object]):
    pass


class Titled(dict[object, object]):
    def __init__(self, title: str) -> None:
        self.title = title

    def __repr__(self) -> str:
        return f"{self.title}{super().__repr__()}"


def titled(title: str, members: dict[object, object]) -> Titled:
    made = Titled(title)
    made.update(members)
    return made


tensor = st.integers(0, 99).map(torch.tensor)
constant = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
keys = st.text("ab1-", min_size=1, max_size=3) | st.integers(0, 2)


def containers(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    lists = st.lists(inner, max_size=3)
    dicts = st.dictionaries(keys, inner, max_size=3)
    return st.one_of(
        lists,
        lists.map(tuple),
        lists.map(Sequence),
        dicts,
        dicts.map(OrderedDict),
        dicts.map(lambda members: defaultdict(list, members)),
        dicts.map(UserDict),
        st.builds(titled, st.text("ab", max_size=2), dicts),
        st.builds(Named, a=inner, b=inner),
        st.builds(Pair, inner, inner),
        st.builds(Record, inner, inner),
        st.builds(Frozen, inner),
        st.builds(Slotted, inner),
        st.builds(Computed, inner),
        st.builds(DiffusersOutput, inner, inner),
    )


outputs = st.recursive(tensor | constant, containers, max_leaves=8)


def restored(output: object, values: list[torch.Tensor] | None = None) -> object:
    return Structure.from_output(output).restore(iter(values or tensors(output)))


@given(outputs)
def test_restore_inverts_tensors(output: object) -> None:
    found = restored(output)
    assert repr(found) == repr(output)
    assert type(found) is type(output)


@given(outputs)
def test_restore_takes_other_tensors_and_leaves_the_first_output_as_it_is(output: object) -> None:
    before, structure = repr(output), Structure.from_output(output)
    for offset in (100, 200):
        others = [torch.tensor(offset + number) for number in range(structure.count)]
        found = tensors(structure.restore(iter(others)))
        if len({id(t) for t in tensors(output)}) == structure.count:  # none appears twice
            assert list(map(id, found)) == list(map(id, others))
    assert repr(output) == before


@given(outputs)
def test_tensors_and_leaves_agree(output: object) -> None:
    assert [id(t) for t in tensors(output)] == [id(leaf.tensor) for leaf in leaves(output)]


def test_paths_of_leaves() -> None:
    one = torch.ones(1)
    output = {"logits": one, "states": (one, Pair(one, None))}
    assert [leaf.path for leaf in leaves(output)] == ["logits", "states.0", "states.1.0"]
    assert [leaf.path for leaf in leaves(one)] == ["output"]


def test_a_defaultdict_keeps_its_factory() -> None:
    found = restored(defaultdict(list, a=torch.ones(1)))
    assert isinstance(found, defaultdict)
    assert found["missing"] == []


def test_the_result_of_a_torch_operator_keeps_its_type() -> None:
    output = torch.ones(2, 3).max(0)
    found = restored(output)
    assert type(found) is type(output)
    assert found.indices is output.indices  # type: ignore[attr-defined]


class Cache:
    pass


@pytest.mark.parametrize("read", [Structure.from_output, require_tensors])
def test_an_output_with_another_object_is_refused_by_the_objects_name(read: object) -> None:
    assert callable(read)
    with pytest.raises(BackendError) as caught:
        read({"logits": torch.ones(1), "past": Cache()})
    assert caught.value.reason == "forward returns a Cache, which holds more than tensors"
    assert "use_cache=False" in caught.value.remedy


class Doubling(UserDict[str, object]):
    """Returns another tensor on each access."""

    def __getitem__(self, key: str) -> object:
        return self.data[key] * 2  # type: ignore[operator]


class Reduced(UserDict[str, object]):
    def __reduce_ex__(self, protocol: object) -> tuple[type, tuple[()]]:
        return dict, ()


class Uncopyable(UserDict[str, object]):
    def __reduce_ex__(self, protocol: object) -> str:
        raise RuntimeError("not to be copied")


def with_hidden_tensor() -> UserDict[str, object]:
    output = UserDict[str, object](a=torch.ones(1))
    output.hidden = torch.ones(1)  # type: ignore[attr-defined]
    return output


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (Doubling(a=torch.ones(1)), "tensors besides its members"),
        (Reduced(a=torch.ones(1)), "its copy differs"),
        (Uncopyable(a=torch.ones(1)), "RuntimeError: not to be copied"),
        (with_hidden_tensor(), "tensors besides its members"),
    ],
)
def test_a_container_that_cannot_be_rebuilt_is_refused(output: object, reason: str) -> None:
    with pytest.raises(BackendError, match=reason):
        Structure.from_output((output,))


def test_a_model_output_is_restored() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs", reason="needs transformers")
    output = outputs.BaseModelOutput(
        last_hidden_state=torch.ones(1), hidden_states=(torch.ones(1), torch.zeros(1))
    )
    found = restored(output)
    assert type(found) is outputs.BaseModelOutput
    assert isinstance(found, dict)
    assert list(found) == ["last_hidden_state", "hidden_states"]
    assert found.attentions is None  # type: ignore[attr-defined]
    assert [leaf.path for leaf in leaves(output)] == [
        "last_hidden_state",
        "hidden_states.0",
        "hidden_states.1",
    ]


def test_structures_of_a_dict_and_an_ordered_dict_differ() -> None:
    ordered = OrderedDict(a=torch.ones(1))
    assert Structure.from_output(dict(ordered)) != Structure.from_output(ordered)
    assert Structure.from_output(dict(ordered)) == Structure.from_output({"a": torch.zeros(1)})
