"""The console that the program speaks through. It prints what it is given: a task's prompt, an error or a list of
overrides may hold square brackets, which rich would take for its markup.
"""

from typing import Any

from rich.console import Console


def new_console(**more: Any) -> Console:
    """Rich's console without markup, smileys and highlighting. more: its other arguments."""
    return Console(markup=False, emoji=False, highlight=False, **more)
