"""Classifying sentences, and pairs of them."""
