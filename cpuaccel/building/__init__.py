"""Applying a plan to a model: a variant for each way of calling it."""
