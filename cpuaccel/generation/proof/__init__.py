"""Comparing a stepper with the original before it serves ``generate``."""
