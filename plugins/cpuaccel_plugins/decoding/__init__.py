"""Decoder models whose few rows are computed by kernels: shared by ``onednn`` and ``int8``."""
