"""Size guards as JSON: what the model's Python code decided by sizes, as expressions of sizes."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt

from cpuaccel.checks.size_guards import SizeGuards
from cpuaccel.checks.symbolic_size import FUNCTIONS, Guard, Rounding, SymbolicSize

_NAMES = {function: name for name, function in FUNCTIONS.items()}

Value = StrictBool | StrictInt | StrictFloat

Place = Annotated[int, Field(ge=0)]
"""The place of a number among those that were saved before."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SavedNumber(_Table):
    """A size of the inputs, a constant, or the result of a function of other numbers."""

    value: Value  # in the symbolic run
    name: str = ""  # the axis group
    function: str = ""  # among FUNCTIONS, or of a Rounding
    digits: tuple[StrictInt | None, ...] | None = None  # of a Rounding
    arguments: tuple[Place, ...] = ()


class SavedGuard(_Table):
    """A decision."""

    number: Place
    value: Value
    place: str


class SavedGuards(_Table):
    """All decisions, and the numbers that they read, each after its arguments."""

    numbers: tuple[SavedNumber, ...]
    guards: tuple[SavedGuard, ...]

    @classmethod
    def from_guards(cls, guards: SizeGuards) -> Self:
        """Describe guards."""
        numbers: list[SavedNumber] = []
        places: dict[int, int] = {}
        for guard in guards.guards:
            # Without recursion: a sum in a loop is an expression of any depth.
            waiting = [guard.size]
            while waiting:
                size = waiting[-1]
                missing = [one for one in size.arguments if id(one) not in places]
                waiting += missing
                if missing:
                    continue
                waiting.pop()
                if id(size) not in places:
                    places[id(size)] = len(numbers)
                    numbers.append(_describe(size, places))
        described = (
            SavedGuard(number=places[id(one.size)], value=one.value, place=one.place)
            for one in guards.guards
        )
        return cls(numbers=tuple(numbers), guards=tuple(described))

    def to_guards(self) -> SizeGuards:
        """Make the guards again.

        Raises:
            IndexError: a number stands before its arguments.
            KeyError: a function is not known.
        """
        decisions: list[Guard] = []
        sizes: list[SymbolicSize] = []
        for one in self.numbers:
            function = None
            if one.function:
                rounds = one.digits is not None
                function = (
                    Rounding(one.function, one.digits or ()) if rounds else FUNCTIONS[one.function]
                )
            arguments = [sizes[place] for place in one.arguments]
            sizes.append(SymbolicSize(one.value, decisions, function, arguments, one.name))
        return SizeGuards(
            tuple(Guard(sizes[one.number], one.value, one.place) for one in self.guards)
        )


def _describe(size: SymbolicSize, places: dict[int, int]) -> SavedNumber:
    function = size.function
    arguments = tuple(places[id(one)] for one in size.arguments)
    if isinstance(function, Rounding):
        name, digits = function.name, function.digits
        return SavedNumber(value=size.value, function=name, digits=digits, arguments=arguments)
    name = "" if function is None else _NAMES[function]
    return SavedNumber(value=size.value, name=size.name, function=name, arguments=arguments)
