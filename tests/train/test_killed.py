"""Signal 9 at random moments: the same program again ends with the bits of an undisturbed run."""

import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from tests.train import forking
from tests.train.test_loop import Run, batches, equal

STEPS = 60


def program(method, folder, snapshots, pause=0.002):
    """Trains to the end; each look leaves a byte in a file, so that looks can be counted across deaths."""
    run = Run(method, folder)
    count = os.open(folder / "looks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def batch(t):
        time.sleep(pause)
        os.write(count, b".")
        return batches(t)

    options = {"snapshots": run.snapshots, "max_replay_seconds": 0.0} if snapshots else {}
    run.train(STEPS, batches=batch, **options)
    torch.save(run.bits, folder / "result")


@pytest.mark.parametrize(
    "method, snapshots", [("fzoo", False), ("fzoo", True), ("mezo", True), ("adamw", True)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again(method, snapshots, seed, tmp_path):
    expected = Run(method)
    expected.train(STEPS)
    pick = random.Random(seed)
    deaths = 0
    for _ in range(6):
        deaths += forking.kill(
            forking.start(lambda: program(method, tmp_path, snapshots)), pick.uniform(0.005, 0.12)
        )
        if (tmp_path / "result").exists():
            break
    assert deaths > 0
    done = Run(method, tmp_path)
    assert done.journal is not None
    steps, looks = len(done.journal), (tmp_path / "looks").stat().st_size
    done.journal.close()
    assert forking.wait(forking.start(lambda: program(method, tmp_path, snapshots))) == 0
    assert equal(torch.load(tmp_path / "result"), expected.bits)
    more = (tmp_path / "looks").stat().st_size - looks
    # A step exists from its record on; a first-order step, from its snapshot on, which comes right after.
    assert more <= STEPS - steps + (1 if method == "adamw" else 0)
    assert looks + more <= STEPS + deaths * (2 if method == "adamw" else 1)


@pytest.mark.slow
def test_a_program_of_its_own_is_killed(tmp_path):
    """The same with fresh interpreters."""
    script = tmp_path / "program.py"
    root = Path(__file__).parents[2]
    script.write_text(
        textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(root)!r})
        from pathlib import Path
        import torch
        torch.set_num_threads(1)
        from tests.train.test_killed import program
        program("fzoo", Path({str(tmp_path)!r}), True, pause=0.02)
        """)
    )
    expected = Run("fzoo")
    expected.train(STEPS)
    pick = random.Random(0)
    for _ in range(3):
        child = subprocess.Popen([sys.executable, str(script)])
        while not (tmp_path / "looks").exists():
            time.sleep(0.01)
        time.sleep(pick.uniform(0.5, 5.0))
        child.kill()
        child.wait()
    subprocess.run([sys.executable, str(script)], check=True)
    assert equal(torch.load(tmp_path / "result"), expected.bits)
