"""Recognizing speech, with models that are trained with CTC."""
