"""Finds, checks and loads models (loading), reads logits at chosen positions (head), pools states (pooling)."""
