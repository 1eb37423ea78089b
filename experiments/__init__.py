"""The runner: zo on language models and tasks, from one command line."""
