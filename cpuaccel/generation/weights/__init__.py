"""The memory of weights that a stepper holds in another form."""
