"""Calls transformers without its messages, and lists the errors that it raises for broken folders."""

import logging as python_logging
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

# What transformers raises for a folder whose files are there and nonsense: a negative number of layers, a text for a
# size, an index that names no file of the folder.
BROKEN = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, AssertionError,
    StrictDataclassError,
)  # fmt: skip


# Libraries that print a line of their own where a kernel is missing or numbers are cast, which is no fault of the
# user's, and which peft brings along even where nothing is quantised.
_CHATTY = ("bitsandbytes",)


def hush_libraries() -> None:
    """Lets these libraries print errors alone, from now on; to be called before they are imported."""
    for name in _CHATTY:
        python_logging.getLogger(name).setLevel(python_logging.ERROR)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses load reports and progress bars; real problems in them become errors here."""
    level = logging.get_verbosity()
    bar = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
