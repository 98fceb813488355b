"""Graphs as plain data and tensors, and made again of them."""
