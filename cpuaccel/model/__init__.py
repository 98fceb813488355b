"""How a model is called, what it returns, and its weights."""
