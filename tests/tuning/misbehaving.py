"""Sources of plugins, some of which end their process."""

_HEAD = """
import os, sys, time, traceback
import torch
import cpuaccel

class Model(torch.nn.Module):
    def __init__(self, model, answer):
        super().__init__()
        self.model = model
        self.answer = answer

    def forward(self, **inputs):
        return self.answer(self.model(**inputs))

class Backend(cpuaccel.Backend[cpuaccel.Options]):
    name = "{name}"
    summary = "made by a test"
    takes = gives = cpuaccel.Form.MODULE

    def apply(self, model, context):
        return cpuaccel.Applied(self.made(model), evidence={{"done": 1}})

    def made(self, model):
        return Model(model, self.answer)

    def answer(self, output):
        return output

@cpuaccel.hookimpl
def cpuaccel_backends():
    return [Own]
"""

_OWN = {
    "faithful": "class Own(Backend): pass",
    "exits": """
class Own(Backend):
    def made(self, model):
        print("no licence", flush=True)
        os._exit(7)
""",
    "segfaults": """
class Own(Backend):
    def made(self, model):
        import ctypes
        ctypes.string_at(0)
""",
    "hangs": """
class Own(Backend):
    def made(self, model):
        time.sleep(3600)
""",
    "hangs_holding_the_lock": """
class Own(Backend):
    def made(self, model):
        import ctypes
        ctypes.PyDLL(None).sleep(3600)
""",
    "starts_another_and_hangs": """
class Own(Backend):
    def made(self, model):
        import subprocess
        other = subprocess.Popen(["sleep", "600"])
        started = os.environ["CPUACCEL_TEST_STARTED"]
        with open(started + ".part", "w") as file:
            file.write(f"{os.getpid()} {other.pid}")
        os.rename(started + ".part", started)
        time.sleep(600)
""",
    "then_interrupts": """
class Own(Backend):
    takes = gives = cpuaccel.Form.SCRIPT  # so that it is tried after jit
    def made(self, model):
        import signal
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(600)
""",
    "builds_slowly": """
class Own(Backend):
    def made(self, model):
        for _ in range(30):  # a pause does not shorten the rest
            time.sleep(0.1)
        return super().made(model)
""",
    "leaks": """
class Own(Backend):
    def made(self, model):
        self.held = []
        while True:
            self.held.append(torch.ones(2**20))
""",
    "leaves": """
class Own(Backend):
    def made(self, model):
        sys.exit("this processor is too old")
""",
    "wrong": """
class Own(Backend):
    def answer(self, output):
        return type(output)(*(tensor * 1.5 for tensor in output))
""",
    "nan": """
class Own(Backend):
    def answer(self, output):
        return type(output)(*(tensor * float("nan") for tensor in output))
""",
    "dies_later": """
class Own(Backend):
    def answer(self, output):
        if any(frame.name == "measure" for frame in traceback.extract_stack()):
            os._exit(9)
        return output
""",
    "slow": """
class Own(Backend):
    def answer(self, output):
        time.sleep(0.02)
        return output
""",
}

# For models.Waiting: the quick way is faster beyond any noise.
_QUICK = """
class Own(Backend):
    def made(self, model):
        return Quick(model)
class Quick(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, input_ids):
        return self.model(input_ids, quick=WHEN)
"""
_OWN["short"] = _QUICK.replace("WHEN", "input_ids.shape[1] <= 16")
_OWN["long"] = _QUICK.replace("WHEN", "input_ids.shape[1] > 16")
_OWN["wrong_by_a_little"] = _QUICK.replace("quick=WHEN)", "quick=True) * 1.00001")
_OWN["coarse"] = _QUICK.replace("quick=WHEN)", "quick=True) * 1.1") + "Own.tolerance = 0.15\n"
_OWN["with_option"] = _QUICK.replace("WHEN", "True").replace(
    "    def made",
    """    class Options(cpuaccel.Options):
        note: str = "as it comes"
    def apply(self, model, context):
        return cpuaccel.Applied(Quick(model), evidence={"note": self.options.note})
    def made""",
)
_OWN["short_elsewhere"] = _OWN["short"].replace(
    "return Quick(model)",
    """spec = sys.modules["__main__"].__spec__
        if spec is None or spec.name != "cpuaccel.tuning.workers.child":
            raise RuntimeError("not in this process")
        return Quick(model)""",
)

SOURCES = {name: _HEAD.format(name=name) + own for name, own in _OWN.items()}
