"""Tests of a stepper alone: what it needs, what it leaves unchanged, and its evidence."""

import pytest
import torch

import cpuaccel
from cpuaccel.testing.generation.decoders import (
    CONFIGS,
    assert_close,
    generated,
    grown_cache,
    logits_of,
    prompt,
)
from cpuaccel.testing.generation.subject import GenerationSubject
from cpuaccel.testing.hosts import ODD_HOSTS
from cpuaccel.testing.state import changed, global_state, model_state
from cpuaccel.testing.verdicts import assert_complete


class StepperContract(GenerationSubject):
    """A stepper computes from the cache that it gets, and changes nothing else."""

    @pytest.mark.parametrize("host", ODD_HOSTS.values(), ids=list(ODD_HOSTS))
    def test_check_generation_returns_a_verdict(self, host: cpuaccel.Host) -> None:
        assert self.backend_class.generates, "declare generates = True"
        assert_complete(self.instance().check_generation(host))

    def test_the_report_says_applied_with_evidence(self) -> None:
        for name in self.architectures:
            outcome = self.generating(self.decoder(name)).report.generation.outcome
            assert outcome.status == "applied", outcome
            assert outcome.evidence, "return Stepper(forward, bytes, {...}) with proof of effect"
            assert all(isinstance(v, (int, float, str)) for v in outcome.evidence.values())

    def test_a_step_reads_the_weights_once(self) -> None:
        """A weight in a matrix takes from 1 bit to 4 bytes, and most of them are read."""
        for name in self.architectures:
            model = self.decoder(name)
            matrices = sum(p.numel() for p in model.parameters() if p.dim() > 1)
            tables = sum(m.weight.numel() for m in model.modules() if _is_table(m))
            read = self.stepper(model).bytes_per_step
            assert isinstance(read, int)
            assert (matrices - tables) / 8 <= read <= 4.5 * matrices, (
                f"{name}: bytes_per_step is {read}, of {matrices} weights in matrices"
            )

    def test_two_caches_side_by_side(self) -> None:
        """Each step computes from what its cache holds, and from nothing before it."""
        for name in self.architectures:
            model = self.decoder(name)
            step = self.stepper(model).forward
            texts = [prompt(12, seed=seed)["input_ids"] for seed in range(2)]
            found: list[list[torch.Tensor]] = [[], []]
            caches = [grown_cache(model) for _ in texts]
            for begin, end in ((0, 5), *((at, at + 1) for at in range(5, 12))):
                for index, text in enumerate(texts):
                    logits = logits_of(step, text[:, begin:end], caches[index])
                    found[index].append(logits)
                    assert caches[index].get_seq_length() == end, "extend the caller's cache"
            for text, parts in zip(texts, found, strict=True):
                expected = logits_of(model, text, grown_cache(model))
                assert_close(torch.cat(parts, 1), expected, self.tolerance(), name)

    def test_logits_that_are_kept_do_not_change(self) -> None:
        for name in self.architectures:
            model = self.decoder(name)
            step, cache = self.stepper(model).forward, grown_cache(model)
            text = prompt(12)["input_ids"]
            kept = [logits_of(step, text[:, at : at + 1], cache) for at in range(3)]
            copies = [logits.clone() for logits in kept]
            for at in range(3, 12):
                logits_of(step, text[:, at : at + 1], cache)
            assert all(map(torch.equal, kept, copies)), f"{name}: return tensors of their own"

    def test_the_callers_model_is_unchanged(self) -> None:
        for name in self.architectures:
            model = self.decoder(name)
            before, settings = model_state(model), global_state()
            fast = self.generating(model)
            assert changed(before, model_state(model)) == []
            assert changed(settings, global_state()) == []
            generated(fast, prompt(9))
            assert changed(before, model_state(model)) == []

    def test_a_stepper_does_not_change_its_model(self) -> None:
        for name in self.architectures:
            model = self.decoder(name)
            before = model_state(model)
            step = self.stepper(model).forward
            logits_of(step, prompt(5)["input_ids"], grown_cache(model))
            assert changed(before, model_state(model)) == []

    def test_the_original_is_exact_after_weights_were_unloaded(self) -> None:
        for name in self.architectures:
            model = self.decoder(name)
            before = {key: weight.clone() for key, weight in model.state_dict().items()}
            fast = self.generating(model, keep_original=False)
            generated(fast, prompt(9))
            assert fast.report.calls == {"optimized": 1}, fast.report
            for key, weight in model.state_dict().items():
                assert torch.equal(weight, before[key]), f"{name}: {key}"

    def test_only_parameters_of_the_model_are_unloaded(self) -> None:
        for name in self.architectures:
            model = self.decoder(name)
            unloaded: list[torch.Tensor] = []

            def unload(weight: torch.Tensor, into: list[torch.Tensor] = unloaded) -> bool:
                into.append(weight)
                return True

            self.stepper(model, unload)
            own = {id(parameter) for parameter in model.parameters()}
            assert {id(weight) for weight in unloaded} <= own, f"{name}: pass the parameter itself"

    def test_unusual_decoders_are_refused_by_backend_errors(self) -> None:
        """Any other exception is the backend's own fault."""
        self.need_generation()
        for name in CONFIGS:
            reason = "-"
            try:
                stepper: object = self.stepper(self.decoder(name))
            except cpuaccel.BackendError as error:
                stepper, reason = None, error.reason
            assert reason, f"{name}: a BackendError needs a reason"
            assert not reason.endswith("."), "leave the full stop out: cpuaccel adds it"
            assert stepper is None or isinstance(stepper, cpuaccel.Stepper), name


def _is_table(module: torch.nn.Module) -> bool:
    """Whether a step reads a few rows of a weight only, if it is not the head's too."""
    return isinstance(module, torch.nn.Embedding)
