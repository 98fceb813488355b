"""Machine, versions and plugins that results depend on, and what has changed since."""

import re
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict

import cpuaccel
from cpuaccel.plugin.host import Host
from cpuaccel.plugin.manager import PluginHost

_ABSENT = "absent"
# Flags that decide how fast inference is; a processor has over a hundred flags in all.
_NAMED_FLAGS = re.compile(
    r"avx2|fma|avx512(f|bw|vl|dq|_vnni|_bf16|_fp16)|avx_vnni(_int8)?|amx_\w+"
    r"|asimd|asimddp|sve2?|bf16|i8mm"
)


class Fingerprint(BaseModel):
    """What measurements and compiled programs depend on; fields are named as in ``Host``.

    Attributes:
        isa: the processor's flags, separated by spaces.
        packages: versions of the installed packages that are used, cpuaccel and torch included.
        plugins: for each backend, the plugin that offers it with its version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    processor: str
    isa: str
    torch_isa: str
    python: str
    packages: dict[str, str]
    plugins: dict[str, str]

    @classmethod
    def from_host(
        cls, host: Host, plugins: PluginHost, backends: Iterable[str], packages: Iterable[str]
    ) -> "Fingerprint":
        """Collect the facts that backends depend on: their required packages, and ``packages``."""
        origins = {name: plugins.origins[name] for name in sorted(backends)}
        required = {
            Requirement(text).name
            for backend in origins
            for alternative in plugins.backends[backend].requires
            for text in alternative
        }
        names = sorted(map(canonicalize_name, {"torch", *packages, *required}))
        return Fingerprint(
            machine=host.machine,
            processor=host.processor,
            isa=" ".join(sorted(host.isa)),
            torch_isa=host.torch_isa,
            python=host.python,
            packages={
                "cpuaccel": cpuaccel.__version__,
                **{name: host.packages[name] for name in names if name in host.packages},
            },
            plugins=origins,
        )

    def changes(self, now: "Fingerprint") -> list[str]:
        """Name each fact that differs: versions first, the processor's flags last."""
        was, is_ = self._facts(), now._facts()
        changes = [
            f"{name} was {was.get(name, _ABSENT)}, is {is_.get(name, _ABSENT)}"
            for name in dict.fromkeys((*was, *is_))
            if was.get(name) != is_.get(name)
        ]
        before, after = {*self.isa.split()}, {*now.isa.split()}
        if missing := before - after:
            changes.append(f"the processor lacks {_summarize_flags(missing)}")
        if added := after - before:
            changes.append(f"the processor also has {_summarize_flags(added)}")
        return changes

    def _facts(self) -> dict[str, object]:
        """Return all facts but the processor's flags, by their names in a file."""
        facts: dict[str, object] = {}
        for name, value in self:
            if isinstance(value, dict):
                facts |= {f"{name}.{key}": one for key, one in value.items()}
            elif name != "isa":
                facts[name] = value
        return facts


def _summarize_flags(flags: set[str]) -> str:
    named = sorted(flag for flag in flags if _NAMED_FLAGS.fullmatch(flag))
    others = len(flags) - len(named)
    count = f"{others} other flag{'s' if others > 1 else ''}"
    if not others:
        return ", ".join(named)
    return f"{', '.join(named)} and {count}" if named else count
