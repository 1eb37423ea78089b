"""The files of a run's folder: reading and writing them, its lock, its provenance. Imports no torch."""
