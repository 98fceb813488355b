"""Optimized models saved in folders: replaced in one step, verified when loaded.

``SHA256SUMS`` lists the checksum of every other file. ``artifact.json`` describes the model, the
calls, the host and the versions. ``pipeline.toml`` is the pipeline, ``report.json`` its report,
``weights.safetensors`` the original's weights, ``examples.safetensors`` inputs with the original's
outputs, ``config.json`` the configuration of a Transformers model, ``kept.json`` and
``kept.bin`` what backends keep of a build, ``model*.pt`` TorchScript.
No file is a pickle or names code to import.
"""
