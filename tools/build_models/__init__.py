"""Builds the two shipped models of experiments/world; it runs once: python -m tools.build_models.build."""
