"""Optimized models in folders: written all at once, believed only as far as they were checked.

``SHA256SUMS`` lists every other file with its hash. ``artifact.json`` says what was saved, where
and with what, ``pipeline.toml`` is the recipe, ``report.json`` what came of it,
``weights.safetensors`` the original's weights, ``examples.safetensors`` inputs with the original's
answers, ``config.json`` the configuration of a Transformers model, ``model*.pt`` TorchScript.
Nothing is pickled, and nothing names code to import.
"""
