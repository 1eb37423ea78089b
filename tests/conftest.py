"""Every test runs on one thread and without the network, whoever starts pytest."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))  # tests.tiny, also when started as plain `pytest`

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """torch reads OMP_NUM_THREADS once; a plugin may have imported it before."""
    if "torch" in sys.modules:  # tests of the command line start without it
        sys.modules["torch"].set_num_threads(1)
