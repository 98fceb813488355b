"""Convolutions on oneDNN."""
