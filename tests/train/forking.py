"""A child process that shares nothing but files, without the seconds that importing torch takes."""

import os
import signal
import time
import traceback
from collections.abc import Callable


def start(task: Callable[[], object]) -> int:
    """Runs the task in a child; the child's exit status is 0, or 1 when the task raised."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        task()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def kill(pid: int, after: float) -> bool:
    """Signal 9 after so many seconds; whether the child was still running then."""
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def wait(pid: int) -> int:
    """The exit status of a child that ends by itself."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
