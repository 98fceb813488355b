"""Decoder layers that read an encoder's output, computed by the kernels where rows are few."""
