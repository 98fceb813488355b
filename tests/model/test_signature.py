import inspect
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cpuaccel.errors import SignatureError
from cpuaccel.model.signature import Binder, Signature, cast_floating

Forward = Callable[..., dict[str, object]]
Call = tuple[Forward, tuple[object, ...], dict[str, object]]


def question(
    input_ids: object = None,
    attention_mask: object = None,
    token_type_ids: object = None,
    *,
    output_attentions: object = None,
) -> dict[str, object]:
    return locals()


def positional_only(x: object, y: object = None, /, z: object = 3) -> dict[str, object]:
    return locals()


def several(x: object, y: object = None, *more: object, flag: object = False) -> dict[str, object]:
    return locals()


def named(x: object, **others: object) -> dict[str, object]:
    return locals()


def anything(x: object, y: object = 2, /, *more: object, **others: object) -> dict[str, object]:
    return locals()


FORWARDS: tuple[Forward, ...] = (question, positional_only, several, named, anything)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    forward = draw(st.sampled_from(FORWARDS))
    values: st.SearchStrategy[object] = st.none() | st.integers(0, 9)
    parameters = inspect.signature(forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        names += ["surplus_a", "surplus_b"]
    args = draw(st.lists(values, max_size=4))
    kwargs = draw(st.dictionaries(st.sampled_from(names), values)) if names else {}
    return forward, tuple(args), kwargs


@given(calls())
def test_bind_and_call_agree_with_python(call: Call) -> None:
    forward, args, kwargs = call
    binder = Binder(forward)
    try:
        inspect.signature(forward).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises((SignatureError, TypeError)):
            binder.call(forward, binder.bind(args, kwargs))
        return
    assert binder.call(forward, binder.bind(args, kwargs)) == forward(*args, **kwargs)


@given(st.permutations(["input_ids", "attention_mask", "token_type_ids"]))
def test_bind_orders_names_as_forward_does(order: list[str]) -> None:
    inputs = Binder(question).bind((), dict.fromkeys(order, 1))
    assert list(inputs) == ["input_ids", "attention_mask", "token_type_ids"]


def test_bind_drops_none_where_it_is_the_default() -> None:
    assert Binder(question).bind((), {"input_ids": 1, "attention_mask": None}) == {"input_ids": 1}
    assert Binder(several).bind((None,), {}) == {"x": None}


def test_the_error_for_an_unknown_input_names_the_parameters() -> None:
    with pytest.raises(SignatureError) as caught:
        Binder(question).bind_example({"inputs": 1})
    assert str(caught.value) == (
        "input 'inputs' is not a parameter of forward, which takes input_ids, attention_mask, "
        "token_type_ids, output_attentions. Rename or remove it"
    )


def test_a_missing_input_is_named() -> None:
    with pytest.raises(SignatureError) as caught:
        Binder(several).bind_example({"flag": 1})
    assert str(caught.value) == (
        "forward requires 'x', which is missing from the inputs: flag. Add it"
    )


def test_too_many_positional_inputs() -> None:
    with pytest.raises(SignatureError, match=r"forward takes 3 positional inputs .*, got 4"):
        Binder(question).bind((1, 2, 3, 4), {})


def test_an_input_passed_twice() -> None:
    with pytest.raises(SignatureError, match="'input_ids' is passed by position and by name"):
        Binder(question).bind((1,), {"input_ids": 2})


@pytest.mark.parametrize("example", [3, "text", None])
def test_example_inputs_of_another_type(example: object) -> None:
    with pytest.raises(SignatureError, match="Pass a mapping by parameter name"):
        Binder(question).bind_example(example)  # type: ignore[arg-type]


def test_a_forward_that_cannot_be_read() -> None:
    with pytest.raises(SignatureError, match=r"Wrap the model in an nn\.Module"):
        Binder(3)  # type: ignore[arg-type]


def test_one_tensor_and_a_tuple_are_positional() -> None:
    ids, mask = torch.ones(1, 2), torch.zeros(1, 2)
    assert list(Binder(question).bind_example(ids)) == ["input_ids"]
    assert list(Binder(question).bind_example((ids, mask))) == ["input_ids", "attention_mask"]


def test_a_signature_describes_the_inputs() -> None:
    inputs = {
        "input_ids": torch.ones(2, 7, dtype=torch.long),
        "attention_mask": torch.ones(2, 7, dtype=torch.long),
        "token_type_ids": torch.ones(1, 7, dtype=torch.long),
        "output_attentions": True,
    }
    signature = Signature.from_inputs(question, inputs)
    assert signature.tensors == ("input_ids", "attention_mask", "token_type_ids")
    assert signature.constants == {"output_attentions": True}
    assert signature.axes.batch == ("input_ids", "attention_mask")
    assert signature.axes.length == ("input_ids", "attention_mask", "token_type_ids")
    assert signature.masked
    assert str(signature) == (
        "input_ids: int64[2, 7], attention_mask: int64[2, 7], token_type_ids: int64[1, 7], "
        "output_attentions=True"
    )


def test_a_signature_without_a_padding_mask() -> None:
    assert not Signature.from_inputs(question, torch.ones(1, 2)).masked


def test_only_floating_tensors_are_cast() -> None:
    x = torch.ones(1)
    inputs = {"x": x, "ids": torch.ones(1, dtype=torch.long), "flag": 1.5}
    cast = cast_floating(inputs, torch.bfloat16)
    assert [getattr(v, "dtype", v) for v in cast.values()] == [torch.bfloat16, torch.long, 1.5]
    assert x.dtype is torch.float32
