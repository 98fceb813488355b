"""Decoders on OpenVINO, for ``generate``: a graph with the keys and values as its state."""
