"""Fixtures of the docs' tests."""

from tests.cli.conftest import run as run
