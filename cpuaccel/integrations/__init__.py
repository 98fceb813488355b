"""Optimized models in other libraries, one module for each library."""
