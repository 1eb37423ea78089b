"""The terminal: the console, the panel and progress lines of a run."""
