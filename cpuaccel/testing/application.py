"""Tests of what applying a backend changes and what it must not change."""

import pytest
import torch

import cpuaccel
from cpuaccel.testing.outputs import assert_matches_original
from cpuaccel.testing.state import changed, global_state, model_state
from cpuaccel.testing.subject import Subject


class ApplicationContract(Subject):
    """A step takes effect and has evidence; the caller's model and the process are unchanged."""

    def test_the_report_says_applied_with_evidence(self) -> None:
        report = self.optimized_once().report
        assert report.applied == (*self.after, self.backend)
        outcome = report.outcomes[-1]
        assert outcome.evidence, "return Applied(model, evidence={...}) with proof of effect"
        assert all(isinstance(v, (int, float, str)) for v in outcome.evidence.values())

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    def test_the_callers_model_the_inputs_and_global_settings_are_unchanged(
        self, training: bool
    ) -> None:
        self.need_engine()
        model, inputs = self.model().train(training), self.example_inputs()
        before, settings = model_state(model), global_state()
        fast = cpuaccel.optimize(model, self.steps(), example_inputs=inputs, strict=True)
        fast(**inputs)
        assert changed(before, model_state(model)) == []
        assert changed(settings, global_state()) == []
        expected = self.example_inputs()
        assert list(inputs) == list(expected)
        for name, tensor in inputs.items():
            assert torch.equal(tensor, expected[name]), name

    def test_apply_does_not_change_its_model(self) -> None:
        self.need_engine()
        if self.backend_class.takes is not cpuaccel.Form.MODULE:
            pytest.skip(f"{self.backend} does not take a module")
        model = self.model()
        before = model_state(model)
        signature = cpuaccel.Signature.from_inputs(model, self.example_inputs())
        with torch.no_grad():
            self.instance().apply(model, cpuaccel.Context(cpuaccel.host(), signature))
        assert changed(before, model_state(model)) == []

    def test_models_are_independent_and_can_be_optimized_twice(self) -> None:
        other = self.model()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(0.5)
        once = self.optimized_once()
        for fast in [once, self.optimize(other), self.optimize(once.original)]:
            assert fast.report.applied == (*self.after, self.backend)
            assert_matches_original(fast, self.example_inputs(), self.tolerance())

    def test_without_example_inputs_the_first_call_builds(self) -> None:
        self.need_engine()
        fast = cpuaccel.optimize(self.model(), self.steps(), strict=True)
        assert not fast.report.variants
        assert_matches_original(fast, self.example_inputs(), self.tolerance())
        assert fast.report.applied == (*self.after, self.backend)
