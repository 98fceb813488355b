"""``cpuaccel doctor``."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from cpuaccel.cli.arguments import BlockingOption, JsonOption, block_by
from cpuaccel.cli.console import heading, new_table, print_json, say, stdout

if TYPE_CHECKING:
    from cpuaccel.cli.advice import Advice
    from cpuaccel.plugin.host import Host
    from cpuaccel.plugin.verdict import Verdict

FLAGS = {
    "x86_64": (
        "avx2",
        "avx512f",
        "avx_vnni",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_bf16",
        "amx_int8",
    ),
    "aarch64": ("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2"),
}
"""The processor flags that decide how fast inference can be, by processor family."""

PACKAGES = (
    "torch",
    "transformers",
    "optimum",
    "intel-extension-for-pytorch",
    "onnxruntime",
    "openvino",
    "zentorch",
    "numpy",
)
"""What backends build on; those that are not installed are passed over."""


def doctor(
    pipeline: BlockingOption = None,
    json: JsonOption = False,
) -> None:
    """Look at this machine: what it offers, what each backend can do here and why not.

    Ends with advice on threads, vector instructions and memory.
    """
    from cpuaccel.cli.advice import Memory, advise
    from cpuaccel.plugin.host import host
    from cpuaccel.plugin.manager import plugin_host

    block_by(pipeline)
    here = host()
    verdicts = _verdicts(here)
    advice = advise(here, Memory.detect())
    if json:
        print_json(
            {
                "host": here.to_dict(),
                "bfloat16": asdict(here.bf16()),
                "backends": {name: asdict(verdict) for name, verdict in verdicts.items()},
                "broken_plugins": [asdict(broken) for broken in plugin_host().broken],
                "blocked_plugins": [asdict(blocked) for blocked in plugin_host().blocked],
                "advice": [asdict(item) for item in advice],
            }
        )
        return
    _show_host(here)
    _show_backends(verdicts)
    for broken in plugin_host().broken:
        say(f"plugin {broken.plugin} is set aside: {broken.reason}")
    for blocked in plugin_host().blocked:
        say(f"plugin {blocked.plugin} is blocked by {blocked.by}")
    _show_advice(advice)


def _verdicts(here: "Host") -> "dict[str, Verdict]":
    from cpuaccel.planning.plan import ask
    from cpuaccel.plugin.manager import plugin_host

    return {
        # Not validated: an option without a default must not keep the doctor from asking.
        name: ask(backend(backend.Options.model_construct()).check, here)
        for name, backend in sorted(plugin_host().backends.items())
    }


def _show_host(here: "Host") -> None:
    flags = FLAGS.get(here.machine, ())
    have = [flag for flag in flags if flag in here.isa]
    lack = [flag for flag in flags if flag not in here.isa]
    bf16 = here.bf16()
    speed = f"matrix products run at {here.bf16_speed:.1f} times float32's speed"
    facts = {
        "processor": f"{here.processor} ({here.machine}, {here.microarchitecture})",
        "flags": " ".join(have) + (f"   lacks: {' '.join(lack)}" if lack else ""),
        "torch": f"dispatches to {here.torch_isa}",
        "bfloat16": f"yes: {speed}" if bf16 else f"no. {bf16}.",
        "cores": f"{here.cores} usable, {here.threads} threads in torch",
        "memory": f"{here.memory / 2**30:.1f} GiB",
        "python": here.python,
        "packages": ", ".join(f"{p} {here.packages[p]}" for p in PACKAGES if p in here.packages),
    }
    heading("Host")
    table = new_table("", "")
    table.show_header = False
    for name, fact in facts.items():
        table.add_row(name, fact)
    stdout().print(table, markup=False, highlight=False)


def _show_backends(verdicts: "dict[str, Verdict]") -> None:
    heading("Backends")
    table = new_table("backend", "here", "why not", "what to do")
    for name, verdict in verdicts.items():
        answer = "[green]yes[/]" if verdict else "[yellow]no[/]"
        table.add_row(name, answer, _plain(verdict.reason), _plain(verdict.remedy))
    stdout().print(table, highlight=False)


def _show_advice(advice: "list[Advice]") -> None:
    heading("Advice")
    table = new_table("about", "what is true", "what to do")
    for item in advice:
        table.add_row(item.topic, _plain(item.finding), _plain(item.remedy or "nothing: all well"))
    stdout().print(table, highlight=False)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
