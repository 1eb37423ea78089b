"""Shows a run on the terminal: console, panel and progress lines."""
