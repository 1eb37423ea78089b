"""Two futures of one journal: what was saved beside it belongs to the records that led there, and to no others."""

import os

import pytest
import torch

from tests.train import forking
from tests.train.test_loop import STEPS, Run, equal


def go(folder, steps, rate, snapshots=True, every=0.0):
    """A process that trains with a rate of its own, as a budget of time makes it; its weights."""
    run = Run("fzoo", folder, {"with_lr": True})
    options = {"snapshots": run.snapshots, "max_replay_seconds": every} if snapshots else {}
    run.train(steps, rate=lambda t: rate, **options)
    return run.bits


@pytest.mark.parametrize("kept", [0, 1, 5, 9, 11])
def test_the_snapshots_of_a_future_that_was_cut_are_not_loaded(kept, tmp_path):
    go(tmp_path, 10, 1e-2)
    path = tmp_path / "journal"
    size = (path.stat().st_size - start(path)) // 10
    os.truncate(path, start(path) + min(kept, 10) * size)
    other = go(tmp_path, STEPS, 3e-3, every=1e9)  # saves none itself
    assert equal(go(tmp_path, STEPS, 0.0), other)
    assert equal(go(tmp_path, STEPS, 0.0, snapshots=False), other)


def start(path) -> int:
    """Where the records begin."""
    content = path.read_bytes()
    return 13 + 8 + int.from_bytes(content[13:17], "little")


@pytest.mark.parametrize("method", ["fzoo", "mezo", "adamw"])
def test_a_death_in_what_follows_a_step_does_not_lose_it(method, tmp_path):
    """on_step is the run's rows and evaluations: it is called for every step, also if the process dies in it."""
    notes = tmp_path / "notes"

    def program():
        run = Run(method, tmp_path)

        def on_step(t, seen, replayed):
            deaths = len(list(tmp_path.glob("death*")))
            if t == 2 + 3 * deaths and deaths < 3:
                (tmp_path / f"death{deaths}").touch()
                os._exit(9)
            with notes.open("a", encoding="utf-8") as file:
                file.write(f"{t}\n")

        run.train(STEPS, snapshots=run.snapshots, max_replay_seconds=0.0, on_step=on_step)
        torch.save(run.bits, tmp_path / "result")

    assert [forking.wait(forking.start(program)) for _ in range(4)] == [9, 9, 9, 0]
    assert {int(line) for line in notes.read_text(encoding="utf-8").split()} == set(range(STEPS))
    whole = Run(method)
    whole.train(STEPS)
    assert equal(torch.load(tmp_path / "result"), whole.bits)
