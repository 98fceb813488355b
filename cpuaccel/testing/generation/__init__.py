"""The part of the conformance kit for backends that generate."""
