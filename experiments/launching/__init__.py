"""Launches many runs: expands a command line or a file of sweeps/, checks it, freezes it, starts it, follows it."""
