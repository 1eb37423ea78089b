"""Measures what a step costs beyond its own forward passes. `python -m benchmarks.run --help`."""
