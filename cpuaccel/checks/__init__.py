"""Comparing the outputs of every step with those of the original."""
