"""Provides the console that the program prints to, and streams that survive a closed pipe.

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
    """Returns a rich Console with markup, emoji and highlighting disabled; keyword arguments are passed on."""
    return Console(markup=False, emoji=False, highlight=False, **more)


class Outlet(io.TextIOBase):
    """A text stream that never fails: after the first failed write, output is dropped.

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
        """Redirects the stream to nowhere: flushing its buffer, also at exit, would fail again."""
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
    """Keeps failures of stdout and stderr from ending the program."""
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
            # Otherwise another stream wraps it, such as one that names a rank.
            if getattr(sys, name) is outlet:
                setattr(sys, name, outlet.stream)
