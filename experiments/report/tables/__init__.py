"""The tables of a report: their cells, what goes into each, and those beside published numbers."""
