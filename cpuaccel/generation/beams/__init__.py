"""Beam search: Transformers' own loop, over the best tokens of each beam."""
