"""Tests of what a backend class declares, independent of any host or model."""

import re

import pytest
from pydantic import ValidationError

import cpuaccel
from cpuaccel.testing.subject import Subject


class DeclarationContract(Subject):
    """Name, summary, forms, requirements and options are valid."""

    def test_the_name_is_valid(self) -> None:
        assert self.backend_class.name == self.backend
        assert re.fullmatch(r"[a-z][a-z0-9_]*", self.backend), "lower case, digits, underscores"

    def test_the_summary_is_one_line(self) -> None:
        summary = self.backend_class.summary
        assert summary.strip()
        assert "\n" not in summary

    def test_before_names_other_backends(self) -> None:
        assert not isinstance(self.backend_class.before, str)
        assert self.backend not in self.backend_class.before

    def test_excludes_names_other_backends_with_reasons(self) -> None:
        excludes = self.backend_class.excludes
        assert self.backend not in excludes
        for reason in excludes.values():
            assert reason.strip()
            assert not reason.endswith("."), "leave the full stop out: cpuaccel adds it"

    def test_requirements_are_sets_of_requirements(self) -> None:
        assert not isinstance(self.backend_class.requires, str)
        for alternative in self.backend_class.requires:
            assert not isinstance(alternative, str), "must be a set of requirements: add a comma"
        cpuaccel.host().meets(*self.backend_class.requires)  # raises if one is malformed

    def test_a_backend_that_generates_has_a_stepper(self) -> None:
        has_stepper = self.backend_class.stepper is not cpuaccel.Backend.stepper
        assert self.backend_class.generates is has_stepper, "generates = True needs a stepper"

    def test_options_are_frozen(self) -> None:
        options = self.instance().options
        assert isinstance(options, cpuaccel.Options)
        assert type(options).model_config.get("frozen"), "keep frozen=True in model_config"

    def test_options_have_defaults(self) -> None:
        self.backend_class.Options()

    def test_unknown_options_are_errors(self) -> None:
        with pytest.raises(ValidationError, match="surely_no_option"):
            self.backend_class.Options(surely_no_option=1)  # type: ignore[call-arg]

    def test_an_instance_keeps_its_options(self) -> None:
        instance = self.instance()
        assert instance.options == self.backend_class.Options(**self.options)
