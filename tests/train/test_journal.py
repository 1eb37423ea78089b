"""The journal: its size, what is cut, what is refused, and full disks."""

import json
import os
import resource
import signal
import struct
import tempfile
from pathlib import Path

import pytest
import torch

from tests.train import forking
from zo import Journal, JournalError

HEADER = {"method": "fzoo", "names": ["a", "b"], "seed": 0, "torch": "2.13"}


def write(path, steps, losses=3, **options):
    with Journal(path, HEADER, losses, **options) as journal:
        for t in range(len(journal), steps):
            journal.append([t + i / 8 for i in range(losses)], *([2.0**-t] if options.get("with_lr") else []))
        return len(journal)


def records(path, losses=3, **options):
    with Journal(path, HEADER, losses, **options) as journal:
        return [journal[t] for t in range(len(journal))]


@pytest.mark.parametrize("losses", [1, 2, 9, 33])
@pytest.mark.parametrize("with_lr", [False, True])
def test_size_of_a_record(tmp_path, losses, with_lr):
    path = tmp_path / "journal"
    write(path, 0, losses, with_lr=with_lr)
    empty = path.stat().st_size
    write(path, 7, losses, with_lr=with_lr)
    size = (path.stat().st_size - empty) / 7
    assert size == 4 * losses + (12 if with_lr else 8) <= 4 * losses + 16


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "journal"
    g = torch.Generator().manual_seed(0)
    told = [torch.randn(5, generator=g).tolist() for _ in range(9)]  # fp32 values
    told[3] = [float("inf"), -float("inf"), 0.0, -0.0, 2.0**-149]
    rates = [torch.tensor(0.1 / (t + 1)).item() for t in range(9)]
    with Journal(path, HEADER, 5, with_lr=True) as journal:
        for losses, rate in zip(told, rates, strict=True):
            journal.append(losses, rate)
        assert [list(journal[t].losses) for t in range(9)] == told
    with Journal(path, HEADER, 5, with_lr=True) as journal:
        assert [(list(journal[t].losses), journal[t].lr) for t in range(9)] == list(
            zip(told, rates, strict=True)
        )
        with pytest.raises(IndexError, match="step 9 of 9"):
            journal[9]
        with pytest.raises(IndexError):
            journal[-1]
    with Journal(tmp_path / "other", HEADER, 1) as journal:
        journal.append([float("nan")])
        assert journal[0].losses[0] != journal[0].losses[0]
        assert journal[0].lr is None


@pytest.mark.parametrize("lost", [1, 3, 19, 20, 21, 45])
def test_a_torn_tail_is_cut(tmp_path, lost):
    path = tmp_path / "journal"
    write(path, 10)
    expected = records(path)
    os.truncate(path, path.stat().st_size - lost)
    whole = 10 - -(-lost // 20)
    assert records(path) == expected[:whole]
    assert write(path, 10) == 10  # and goes on there
    assert records(path) == expected


def test_a_flipped_bit_with_whole_records_behind_it_cuts_nothing(tmp_path):
    """Only a torn last record is cut: the records behind a damaged one are whole, and a copy of it saves the run."""
    path = tmp_path / "journal"
    write(path, 0)
    start = path.stat().st_size
    write(path, 6)
    content, expected = path.read_bytes(), records(path)
    for byte in range(start, len(content)):
        damaged = bytearray(content)
        damaged[byte] ^= 1 << (byte % 8)
        path.write_bytes(damaged)
        bad = (byte - start) // 20
        with Journal(path, HEADER, 3, read_only=True) as journal:
            assert [journal[t] for t in range(len(journal))] == expected[:bad]
            assert (journal.damage is None) == (bad == 5)
        assert path.read_bytes() == damaged
        if bad == 5:
            assert records(path) == expected[:5]
            continue
        with pytest.raises(
            JournalError, match=rf"Record {bad + 1} of 6 of .* {5 - bad} records? behind it (is|are) whole"
        ):
            records(path)
        assert path.read_bytes() == damaged


def test_one_flipped_bit_among_a_thousand_records(tmp_path):
    path = tmp_path / "journal"
    write(path, 1000, 2)
    damaged = bytearray(path.read_bytes())
    damaged[200] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(JournalError, match=r"of 1,000 .* is damaged; 9\d\d records behind it are whole"):
        records(path, 2)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("lost", [3, 20, 33])
def test_bytes_lost_in_the_middle_are_no_torn_tail(tmp_path, lost):
    """What follows is whole, though moved."""
    path = tmp_path / "journal"
    write(path, 9)
    content = path.read_bytes()
    path.write_bytes(content[: -7 * 20] + content[-7 * 20 + lost :])
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"Record 3 of .* is damaged"):
        records(path)
    assert path.read_bytes() == before


def test_what_is_no_record_at_the_end_is_cut(tmp_path):
    """Pages that a power cut left zero, or other litter."""
    path = tmp_path / "journal"
    write(path, 5)
    content, expected = path.read_bytes(), records(path)
    for litter in (b"\0" * 500, b"x" * 61, b"\xff" * 20):
        path.write_bytes(content + litter)
        with Journal(path, HEADER, 3, read_only=True) as journal:
            assert len(journal) == 5 and journal.damage is None
        assert path.read_bytes() == content + litter  # a reader changes nothing
        assert records(path) == expected
        assert path.read_bytes() == content


def test_records_out_of_order_are_refused(tmp_path):
    """Each record holds its step, so that a copied block is no record."""
    path = tmp_path / "journal"
    write(path, 5)
    content = path.read_bytes()
    path.write_bytes(content[:-40] + content[-20:] + content[-40:-20])
    with pytest.raises(JournalError, match="Record 4 of 5"):
        records(path)


def test_a_reader_makes_no_journal_and_needs_no_right_to_write(tmp_path):
    with pytest.raises(JournalError, match="is not there: no step of this run was recorded"):
        Journal(tmp_path / "journal", HEADER, 3, read_only=True)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "journal", 3)
    with Journal(tmp_path / "journal", HEADER, 3, read_only=True) as one:
        with Journal(tmp_path / "journal", HEADER, 3, read_only=True) as other:
            assert len(one) == len(other) == 3
        with pytest.raises(JournalError, match="Another process"):
            Journal(tmp_path / "journal", HEADER, 3)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("mine", encoding="utf-8")
    (tmp_path / "journal").symlink_to(tmp_path / "precious")
    for read_only in (False, True):
        with pytest.raises(JournalError, match="journal is a link"):
            Journal(tmp_path / "journal", HEADER, 3, read_only=read_only)
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "mine"


def test_a_digest_is_of_the_header_and_the_first_records(tmp_path):
    write(tmp_path / "journal", 6)
    with Journal(tmp_path / "journal", HEADER, 3) as journal:
        digests = [journal.digest(t) for t in range(7)]
        assert len(set(digests)) == 7
        assert [journal.digest(t) for t in (4, 2, 6, 0)] == [digests[t] for t in (4, 2, 6, 0)]
        with pytest.raises(IndexError):
            journal.digest(7)
        journal.truncate(3)
        assert journal.digest(3) == digests[3]
        journal.append([9, 9, 9])
        assert journal.digest(4) != digests[4]
    with Journal(tmp_path / "other", {**HEADER, "seed": 1}, 3) as other:
        assert other.digest(0) != digests[0]


def test_a_damaged_header_is_refused(tmp_path):
    path = tmp_path / "journal"
    write(path, 2)
    content = path.read_bytes()
    for damaged in (
        b"",
        b"x",
        b"x" * 1000,
        content[:5],
        content[:20],
        b"\xff" * 64,
        content[:13] + b"\xff" * 50,
    ):
        path.write_bytes(damaged)
        with pytest.raises(JournalError, match="is no journal of zo, or its header is damaged"):
            records(path)
        assert path.read_bytes() == damaged
    header_end = len(content) - 2 * 20
    for byte in range(header_end):
        damaged = bytearray(content)
        damaged[byte] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(JournalError, match="header is damaged"):
            records(path)


def test_another_header_is_refused_by_the_line_that_differs(tmp_path):
    path = tmp_path / "journal"
    write(path, 3)
    content = path.read_bytes()
    changed = {**HEADER, "seed": 1, "more": [1, 2]}
    with pytest.raises(JournalError) as caught:
        Journal(path, changed, 3)
    message = str(caught.value)
    assert "seed: the journal has 0, this run has 1" in message
    assert "more: the journal has null, this run has [1, 2]" in message
    assert "names" not in message and "torch" not in message
    assert "checkpoint.accept" in message
    with pytest.raises(JournalError, match="losses: the journal has 3, this run has 4"):
        Journal(path, HEADER, 4)
    with pytest.raises(JournalError, match="with_lr: the journal has false, this run has true"):
        Journal(path, HEADER, 3, with_lr=True)
    assert path.read_bytes() == content


def test_a_difference_can_be_accepted_by_name(tmp_path):
    path = tmp_path / "journal"
    write(path, 3)
    with Journal(path, {**HEADER, "torch": "3.0"}, 3, accept=["torch"]) as journal:
        assert len(journal) == 3
    with pytest.raises(JournalError, match="seed"):
        Journal(path, {**HEADER, "torch": "3.0", "seed": 1}, 3, accept=["torch"])


def test_a_header_of_tuples_is_that_of_lists(tmp_path):
    path = tmp_path / "journal"
    Journal(path, {"betas": (0.9, 0.999), "n": {"a": 1}}, 1).close()
    Journal(path, {"betas": [0.9, 0.999], "n": {"a": 1}}, 1).close()


def test_the_header_is_readable(tmp_path):
    path = tmp_path / "journal"
    write(path, 1)
    content = path.read_bytes()
    assert content.startswith(b"zo-journal-1\n")
    (size,) = struct.unpack("<I", content[13:17])
    assert json.loads(content[17 : 17 + size]) == {**HEADER, "losses": 3, "with_lr": False}


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path, HEADER, 3)

    def second():
        with pytest.raises(JournalError, match="Another process is running"):
            Journal(path, HEADER, 3)

    assert forking.wait(forking.start(second)) == 0
    with pytest.raises(JournalError, match="Another process is running"):
        Journal(path, HEADER, 3)
    journal.append([1, 2, 3])
    journal.close()
    assert len(records(path)) == 1


def test_the_lock_dies_with_its_process(tmp_path):
    path, ready = tmp_path / "journal", tmp_path / "ready"

    def holds():
        journal = Journal(path, HEADER, 3)
        journal.append([1, 2, 3])
        ready.touch()
        signal.pause()

    pid = forking.start(holds)
    while not ready.exists():
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    with pytest.raises(JournalError, match="Another process"):
        Journal(path, HEADER, 3)
    assert forking.kill(pid, 0.0)
    assert len(records(path)) == 1


def test_of_processes_that_start_together_one_runs(tmp_path):
    """Each finds no journal and makes one; only one of them may go on."""
    go = tmp_path / "go"
    for attempt in range(5):
        path = tmp_path / f"journal{attempt}"

        def one(path=path):
            while not go.exists():
                pass
            try:
                journal = Journal(path, HEADER, 3)
            except JournalError:
                return
            (tmp_path / f"{path.name}-{os.getpid()}").touch()
            journal.append([1, 2, 3])
            while len(list(tmp_path.glob(f"{path.name}-done*"))) < 3:
                if len(list(tmp_path.glob(f"{path.name}-*"))) > 1:
                    break
                if (tmp_path / "stop").exists():
                    break

        children = [forking.start(one) for _ in range(4)]
        go.touch()
        # The losers end at once; the winner waits for the stop file.
        ended = 0
        while ended < 3:
            pid, status = os.waitpid(-1, 0)
            assert pid in children and status == 0
            ended += 1
        (tmp_path / "stop").touch()
        assert os.waitpid(-1, 0)[1] == 0
        assert len(list(tmp_path.glob(f"{path.name}-*"))) == 1
        assert not list(tmp_path.glob("*.tmp"))
        (tmp_path / "stop").unlink()
        go.unlink()


def test_truncating_forgets(tmp_path):
    path = tmp_path / "journal"
    write(path, 9)
    expected = records(path)
    with Journal(path, HEADER, 3) as journal:
        journal.truncate(20)
        assert len(journal) == 9
        journal.truncate(4)
        assert len(journal) == 4
        with pytest.raises(IndexError):
            journal[4]
        journal.append([7, 7, 7])
        assert journal[4].losses == (7, 7, 7)
    assert records(path)[:4] == expected[:4]
    assert len(records(path)) == 5


def limited(size, task):
    """Runs the task in a child whose files cannot grow beyond `size` bytes, as on a full disk."""

    def run():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        task()

    return forking.wait(forking.start(run))


@pytest.mark.parametrize("room", [0, 1, 19, 20, 50])
def test_a_full_disk_leaves_the_journal_intact(tmp_path, room):
    path = tmp_path / "journal"
    write(path, 4)
    expected, size = records(path), path.stat().st_size

    def fills():
        with Journal(path, HEADER, 3) as journal:
            with pytest.raises(JournalError, match=r"journal could not be written: .*free space") as caught:
                for t in range(4, 10):
                    journal.append([t, t, t])
            assert "intact" in str(caught.value)
            assert len(journal) == 4 + room // 20
            journal.truncate(4)

    assert limited(size + room, fills) == 0
    assert records(path) == expected
    assert write(path, 6) == 6  # once there is room, the run goes on


def test_a_full_disk_at_the_start_leaves_nothing(tmp_path):
    def starts():
        with pytest.raises(JournalError, match="journal could not be written: File too large"):
            Journal(tmp_path / "journal", HEADER, 3)

    assert limited(10, starts) == 0
    assert list(tmp_path.iterdir()) == []


def as_nobody(task):
    """Runs the task without root's right to write anywhere."""

    def run():
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        task()

    return forking.wait(forking.start(run))


def test_an_unwritable_folder():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "journal")
        write(path, 2)
        os.chmod(path, 0o444)
        os.chmod(folder, 0o555)

        def tries():
            with pytest.raises(
                JournalError, match=r"new could not be written: Permission denied.*permissions"
            ):
                Journal(path.with_name("new"), HEADER, 3)
            with pytest.raises(JournalError, match="journal could not be written: Permission denied"):
                Journal(path, HEADER, 3)

        assert as_nobody(tries) == 0
        os.chmod(folder, 0o000)

        def cannot_even_look():
            with pytest.raises(JournalError, match="Permission denied"):
                Journal(path, HEADER, 3)

        assert as_nobody(cannot_even_look) == 0
        os.chmod(folder, 0o755)
        os.chmod(path, 0o644)
        assert len(records(path)) == 2


def test_a_path_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "journal", tmp_path / "file" / "journal", tmp_path / "folder"):
        with pytest.raises(JournalError, match="could not be written"):
            Journal(path, HEADER, 3)


@pytest.mark.parametrize("call", ["sync", "close", "append", "truncate"])
def test_a_disk_that_fails_is_one_sentence_and_the_first_error_is_the_one_shown(tmp_path, monkeypatch, call):
    path = tmp_path / "journal"
    write(path, 4)
    expected = records(path)

    def fails(*_):
        raise OSError(5, os.strerror(5))

    calls = {
        "sync": lambda journal: journal.sync(),
        "close": lambda journal: journal.close(),
        "append": lambda journal: journal.append([1, 2, 3]),
        "truncate": lambda journal: journal.truncate(2),
    }
    journal = Journal(path, HEADER, 3, sync_seconds=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        patch.setattr(os, "ftruncate", fails)
        with pytest.raises(JournalError, match=r"journal could not be written: Input/output error"):
            calls[call](journal)
    if call != "close":
        journal.close()
    assert records(path)[:4] == expected

    with (
        monkeypatch.context() as patch,
        pytest.raises(ValueError, match="the first"),
        Journal(path, HEADER, 3),
    ):
        patch.setattr(os, "fsync", fails)
        raise ValueError("the first")
