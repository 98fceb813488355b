"""Recognizing speech, with CTC models and with encoder-decoders."""
