"""Optimized models in other libraries, and in servers."""
