"""The runner: zo on language models and tasks, from one command line."""

import os
import sys
from pathlib import Path

# `python -m experiments` puts the working folder first among those that modules come from, and `cd RUN` may have been
# into a folder that somebody else has filled. While a package is found for -m, "-m" stands for the program's name.
if (
    sys.argv[:1] == ["-m"]
    and sys.path
    and Path(sys.path[0]) == Path(os.getcwd()) != Path(__file__).parents[1]
):
    del sys.path[0]
