"""An optimized model in several processes, each on cores of its own."""
