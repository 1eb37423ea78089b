"""A real pseudo-terminal with a program in it, and what a person would see on its screen."""

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
import traceback
from collections.abc import Callable

import pyte


class Terminal:
    """A program in a forked child, whose terminal is `columns` by `lines`; it sees TERM and no wishes about colours."""

    def __init__(self, program: Callable[[], int], columns: int = 80, lines: int = 30, **environment: str):
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.code: int | None = None
        self.pid, self._master = pty.fork()
        if not self.pid:
            self._child(program, {"TERM": "xterm-256color", **environment})
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self._master)

    def _child(self, program: Callable[[], int], environment: dict[str, str]) -> None:
        code = 1
        try:
            for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
                os.environ.pop(name, None)
            os.environ.update(environment)
            import sys

            # pytest has put its own files in their place
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, m, closefd=False) for n, m in enumerate("rww"))
            while os.get_terminal_size().columns != self.screen.columns:
                time.sleep(0.005)
            code = program()
        except SystemExit as leaving:
            code = int(str(leaving.code))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def resize(self, columns: int, lines: int) -> None:
        """Another size, as a window's that is drawn larger or smaller."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def press(self, keys: str) -> None:
        """What is typed; \\x03 is Ctrl-C."""
        os.write(self._master, keys.encode())

    def until(self, seen: str, seconds: float = 60.0) -> str:
        """Waits until the screen has what the pattern says; returns the screen."""
        end = time.monotonic() + seconds
        while not re.search(seen, self.shown):
            assert time.monotonic() < end and self._read(), f"no {seen!r} on\n{self.shown}"
        return self.shown

    def ended(self, seconds: float = 60.0) -> int:
        """Waits for the end; returns the exit code."""
        end = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < end, f"still running:\n{self.shown}"
        self.after = termios.tcgetattr(self._master)
        os.close(self._master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def shown(self) -> str:
        """The screen's lines."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    @property
    def sane(self) -> bool:
        """The cursor is there, on a line of its own, and the terminal's settings are as they were."""
        visible = not self.screen.cursor.hidden
        return visible and self.screen.cursor.x == 0 and self.after == self.before

    def _read(self) -> bool:
        """Takes what the program has written; False at its end."""
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # of a terminal whose program is gone
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)
