"""Holds a small world of sentences and the two small language models trained on them."""
