"""Builds the tables of a report: their cells, what goes into each, and those with published numbers."""
