"""Starts the runs of a sweep by forking: python -P -m experiments.launching.fork_server, spoken to by `forked`.

A run's first seconds are imports of torch and transformers. This process makes them once, with the frozen code, and
every run is a fork of it: with a session, a log, signal handlers and arguments of its own, as a fresh interpreter has.
Nothing is computed with torch here, so a fork finds no thread of torch's that it would lose; a run starts its own.

Lines of JSON come on stdin and go to stdout:

    {"start": RUN}    is answered by {"started": PID} or {"refused": WHY}, in the order of the questions
    {"forget": PID}   the run's end is known; until then its process id is not given to another
    {"ready": true}   is said once, after the imports; {"ended": PID, "code": CODE} whenever a run has ended
"""

import gc
import json
import os
import selectors
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.config.run_id import seed_of
from experiments.config.saved import load_config
from experiments.display.warned import spoken_warnings
from experiments.launching import worker
from experiments.launching.submission import LOG, submission
from experiments.models.source import here, read_config
from experiments.tasks.splits import digest_of, world_tables
from zo.errors import ConfigError, DataError


def main() -> int:
    """Serves until stdin ends; returns a run's exit code in its fork."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as a worker has it until its run has handlers
    requests, replies = _channel()
    with spoken_warnings(aloud=False) as warned:
        threads = _import()
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the pages of all these objects
    server = _Server(requests, replies, threads)
    server.say({"ready": True})
    folder = server.serve()
    return 0 if folder is None else _run(folder, warned)


def _channel() -> tuple[int, int]:
    """Returns copies of stdin and stdout, which become /dev/null: what a fork prints is no answer."""
    requests, replies = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return requests, replies


def _import() -> int:
    """Imports what every run does; returns how many threads this process has by numpy alone.

    numpy's OpenBLAS starts threads when it is imported, and ends them itself before a fork.
    """
    import numpy  # noqa: F401

    threads = _thread_count()
    import experiments.training.run  # noqa: F401

    return threads


def _thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


class _Server:
    """Answers requests, and reports how forks ended."""

    def __init__(self, requests: int, replies: int, threads: int):
        self._requests, self._replies, self._threads = requests, replies, threads
        self._running: dict[int, int] = {}  # pidfd -> process id
        self._unread = b""

    def serve(self) -> Path | None:
        """Returns None when stdin has ended, and in a fork the folder of its run."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._requests, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd != self._requests:
                        selector.unregister(key.fd)
                        self._report(key.fd)
                        continue
                    data = os.read(self._requests, 1 << 16)
                    if not data:
                        return None
                    *lines, self._unread = (self._unread + data).split(b"\n")
                    for line in lines:
                        if (folder := self._answer(json.loads(line), selector)) is not None:
                            return folder

    def say(self, message: Mapping[str, Any]) -> None:
        """Writes one message."""
        os.write(self._replies, json.dumps(message).encode() + b"\n")

    def _answer(self, request: Mapping[str, Any], selector: selectors.BaseSelector) -> Path | None:
        if "forget" in request:
            os.waitpid(request["forget"], 0)
            return None
        folder = Path(request["start"])
        _prepare(folder)
        if (threads := _thread_count()) > self._threads:
            self.say({"refused": f"{threads} threads would be lost"})
            return None
        try:
            pid = os.fork()
        except OSError as error:
            self.say({"refused": str(error)})
            return None
        if not pid:
            for file in (self._requests, self._replies, *self._running):
                os.close(file)
            return folder
        file = os.pidfd_open(pid)
        self._running[file] = pid
        selector.register(file, selectors.EVENT_READ)
        self.say({"started": pid})
        return None

    def _report(self, file: int) -> None:
        """Says how a run has ended. Its process stays a zombie, so that no signal for it can reach another."""
        pid = self._running.pop(file)
        os.close(file)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        self.say({"ended": pid, "code": code})


def _prepare(folder: Path) -> None:
    """Prepares what later runs can share without torch: the model's module, rows of the built-in world.

    Errors are ignored here, because the run itself meets and reports them.
    """
    with suppress(ConfigError, DataError, ImportError, RuntimeError, OSError):
        config, submitted = load_config(folder), submission(folder)
        os.chdir(submitted["cwd"] if submitted else folder)  # where relative paths start
        if config.task.data_dir is None and config.task.source.world is not None:
            digest_of(config.task, ())
            world_tables(config.task, seed_of(config, "split"), seed_of(config, "test"))
        model = here(config.model, Path(config.paths.models))
        if model is not None:
            import transformers

            for name in read_config(model).get("architectures") or ():
                getattr(transformers, name, None)  # transformers imports a model's module when it is named


def _run(folder: Path, warned: Sequence[str]) -> int:
    """Executes a run as a worker does, in a session of its own and with the run's log; returns its exit code."""
    os.setsid()
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.argv = [worker.__file__, str(folder)]
    for sentence in warned:  # of the imports
        sys.stderr.write(f"Warning: {sentence}\n")
    return worker.work(folder)


if __name__ == "__main__":
    sys.exit(main())
