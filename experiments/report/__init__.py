"""Compares runs: reads their folders, chooses settings on dev, computes statistics, writes tables and the page."""
