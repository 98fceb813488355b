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
        report = self.optimize(self.model()).report
        assert report.applied == (*self.after, self.backend)
        outcome = report.outcomes[-1]
        assert outcome.evidence, "return Applied(model, evidence={...}) with proof of effect"
        assert all(isinstance(v, (int, float, str)) for v in outcome.evidence.values())

    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    def test_the_callers_model_is_unchanged(self, training: bool) -> None:
        model = self.model().train(training)
        before = model_state(model)
        fast = self.optimize(model)
        fast(**self.example_inputs())
        assert changed(before, model_state(model)) == []

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

    def test_the_inputs_are_unchanged(self) -> None:
        self.need_engine()
        inputs = self.example_inputs()
        fast = cpuaccel.optimize(self.model(), self.steps(), example_inputs=inputs, strict=True)
        fast(**inputs)
        expected = self.example_inputs()
        assert list(inputs) == list(expected)
        for name, tensor in inputs.items():
            assert torch.equal(tensor, expected[name]), name

    def test_global_settings_are_unchanged(self) -> None:
        self.need_engine()
        model = self.model()
        before = global_state()
        fast = self.optimize(model)
        fast(**self.example_inputs())
        assert changed(before, global_state()) == []

    def test_optimizing_twice_works(self) -> None:
        model = self.model()
        for fast in (self.optimize(model), self.optimize(model)):
            assert fast.report.applied == (*self.after, self.backend)
            assert_matches_original(fast, self.example_inputs(), self.tolerance())

    def test_two_models_are_independent(self) -> None:
        one, other = self.model(), self.model()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(0.5)
        for fast in [self.optimize(one), self.optimize(other)]:
            assert_matches_original(fast, self.example_inputs(), self.tolerance())

    def test_without_example_inputs_the_first_call_builds(self) -> None:
        self.need_engine()
        fast = cpuaccel.optimize(self.model(), self.steps(), strict=True)
        assert not fast.report.variants
        assert_matches_original(fast, self.example_inputs(), self.tolerance())
        assert fast.report.applied == (*self.after, self.backend)
