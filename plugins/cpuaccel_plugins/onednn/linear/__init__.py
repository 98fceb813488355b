"""Linears on oneDNN and MKL."""
