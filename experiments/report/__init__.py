"""Comparing runs: reading their folders, choosing settings on dev, statistics over seeds, tables, page."""
