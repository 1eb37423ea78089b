"""The commands a user types: launch.py and `python -m experiments <command>`."""
