"""The console that the program speaks through, and streams that outlive whoever read them.

The console prints what it is given: a task's prompt, an error or a list of overrides may hold square brackets, which
rich would take for its markup.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich.console import Console


def new_console(**more: Any) -> Console:
    """Rich's console without markup, smileys and highlighting. more: its other arguments."""
    return Console(markup=False, emoji=False, highlight=False, **more)


class Outlet(io.TextIOBase):
    """A text stream that never fails: what cannot be written is lost, and so is all that comes after it.

    A pipe whose reader has gone (`| head`), a terminal that was closed and a full disk are no reason to end a run.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:  # a terminal of another encoding than the text's
            encoding = self.stream.encoding or "ascii"
            self.stream.write(text.encode(encoding, "replace").decode(encoding))
        except (OSError, ValueError):  # ValueError: it is closed
            self._lose()
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self._lose()

    def _lose(self) -> None:
        """From now on the stream leads nowhere: its buffer, and Python's own flush at the end, would fail again."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return self.stream.isatty()
        return False

    def writable(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has it as an attribute
        return self.stream.encoding


@contextmanager
def outliving_output() -> Iterator[None]:
    """A context in which neither stdout nor stderr can end the program."""
    ours: dict[str, Outlet] = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Outlet):
            ours[name] = Outlet(stream)
            setattr(sys, name, ours[name])
    try:
        yield
    finally:
        for name, outlet in ours.items():
            outlet.flush()
            if (
                getattr(sys, name) is outlet
            ):  # else another stream stands before it, such as one that names a rank
                setattr(sys, name, outlet.stream)
