"""Text generation: Transformers' own ``generate`` over a stepper and a cache that grows."""
