"""What a step costs beside its own forward passes. `python -m benchmarks.run --help`."""
