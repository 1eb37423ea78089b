"""Reads and writes the files of a run's folder, its lock, its provenance. Imports no torch."""
