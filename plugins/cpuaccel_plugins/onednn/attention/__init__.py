"""Scaled dot product attention on oneDNN."""
