"""Finds a user's own files of configuration: a folder with groups as in conf/, and sweeps/.

It is the folder of --config-dir, else of ZO_CONFIG_DIR, else ~/.config/zo (below XDG_CONFIG_HOME, if that is set).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

VARIABLE = "ZO_CONFIG_DIR"
FLAG = "--config-dir"
_FLAGGED: ContextVar[str | None] = ContextVar("config_dir", default=None)


@contextmanager
def config_dir(folder: str | None) -> Iterator[None]:
    """Makes the folder of --config-dir the user's own for what happens inside."""
    token = _FLAGGED.set(folder)
    try:
        yield
    finally:
        _FLAGGED.reset(token)


def own_folder() -> tuple[Path, str]:
    """Returns the user's folder, which may not be there, and what names it."""
    if flagged := _FLAGGED.get():
        return Path(flagged).expanduser().resolve(), FLAG
    if variable := os.environ.get(VARIABLE):
        return Path(variable).expanduser().resolve(), VARIABLE
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "zo", "default"


def own_folders() -> list[Path]:
    """Returns the user's folder, or nothing where there is none."""
    folder, _ = own_folder()
    return [folder] if folder.is_dir() else []


def missing() -> tuple[str, str] | None:
    """Returns what names a folder that is not there, and a sentence; the default folder need not be there."""
    folder, named_by = own_folder()
    if named_by == "default" or folder.is_dir():
        return None
    return (
        f"{named_by}={folder}",
        "There is no such folder. It holds files as conf/ does: optimizer/NAME.yaml.",
    )
