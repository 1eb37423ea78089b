"""Wrong input of `python -m experiments`: every command lists all of it at once, in the form of launch.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.commands.arguments import number_of, problems_in
from experiments.config.problems import Problem
from zo.errors import ConfigError
from zo.fields import Count

ROOT = Path(__file__).parents[2]
LEAKS = (
    "usage:",
    "invalid ",
    "unrecognized",
    "required:",
    "expected one",
    "ignored explicit",
    "argument ",
    "error:",
)


def refused(capsys, *words: str) -> list[str]:
    """The places that a refusal names, in order."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert not any(leak in captured.err for leak in LEAKS)
    head, *lines, last = captured.err.splitlines()
    command = words[0] if words and words[0] in ALL else ""
    assert (
        last
        == f"{' '.join(['python -m experiments', *([command] if command else [])])} --help shows what it takes."
    )
    places = [line.strip() for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert head.startswith(f"{max(len(places), 1)} problem")
    return places


# A line for each kind of mistake: what is typed, and the places that the list names.
MISTAKES: list[tuple[list[str], list[str]]] = [
    (["statsu"], ["statsu"]),
    (["--runs"], ["--runs"]),
    (["replay"], ["RUN"]),
    (["replay", "nowhere", "--stpes", "3", "--allow"], ["--stpes 3", "--allow", "nowhere"]),
    (["replay", "nowhere", "--steps=-5"], ["--steps=-5", "nowhere"]),
    (["export", "docs", "conf", "--steps", "many"], ["--steps many", "--out", "docs", "conf"]),
    (["cut", "nowhere", "--steps", "3"], ["--steps 3", "nowhere"]),
    (["status"], ["RUNS"]),
    (["status", "one", "two", "--once"], ["--once", "one", "two"]),
    (["logs", "nowhere", "--lines", "0"], ["--lines 0", "nowhere"]),
    (["logs", "nowhere", "--lines", "4294967295"], ["--lines 4294967295", "nowhere"]),
    (["cancel", "nowhere", "--all"], ["--all", "nowhere"]),
    (["retry", "nowhere", "--new-code=1", "--trust"], ["--new-code=1", "--trust", "nowhere"]),
    (["watch", "nowhere", "--every", "0"], ["--every 0", "nowhere"]),
    (["watch", "nowhere", "--every", "nan"], ["--every nan", "nowhere"]),
    (["watch", "nowhere", "--every", "1e9", "--once=yes"], ["--every 1e9", "--once=yes", "nowhere"]),
    (["sync", "--to", "wandbb", "--mode", "on"], ["--to wandbb", "--mode on", "RUNS"]),
    (["dashboard", "nowhere", "--out"], ["--out", "nowhere"]),
    (["estimate", "model=opt-13", "--tokens", "0", "seed=-1"], ["--tokens 0", "model=opt-13", "seed=-1"]),
    (["estimate", "--tokens", "4294967295", "--jason"], ["--tokens 4294967295", "--jason"]),
    (["prefetch", "model", "--force", "tsk=sst2"], ["--force", "model", "tsk=sst2"]),
    (["expected", "task=wick", "seed=range(0,1000000000)"], ["seed=range(0,1000000000)", "task=wick"]),
    (["report"], ["RUNS"]),
    (
        ["report", "no", "--reference", "mezo", "--by", "x", "--beside", "nature", "--out", "x.csv", "--where", "y"],
        ["--beside nature", "--out x.csv", "--where y", "--reference", "--by, --beside", "no"],
    ),
    (["doctor", "--seconds", "x", "--jsn"], ["--seconds x", "--jsn"]),
    (["completion", "tcsh", "--x"], ["tcsh", "--x"]),
    (["completion"], ["SHELL"]),
    (["complete"], ["LINE"]),
    (["report", "nowhere", "--passes-to", "80"], ["--passes-to 80", "nowhere"]),
]  # fmt: skip
ALL = {words[0] for words, _ in MISTAKES if not words[0].startswith("-")} - {"statsu"}


@pytest.mark.parametrize(("words", "places"), MISTAKES, ids=lambda part: " ".join(part)[:40])
def test_all_mistakes_of_a_command_come_in_one_list(words, places, capsys):
    assert sorted(refused(capsys, *words)) == sorted(places)


def test_every_command_is_tried():
    from experiments.__main__ import parsers

    read_by_launch = {"run", "sweep"}  # tests/conf/test_wrong_input.py
    assert set(parsers()[1]) - read_by_launch == ALL


def test_without_a_command_the_commands_are_listed(capsys):
    assert main([]) == 2
    assert "Commands: run, sweep, replay, export, cut" in capsys.readouterr().err


def test_a_misspelt_flag_has_the_nearest_name(capsys):
    slips = {"--steps": ["replay", "--stepss"], "--every": ["watch", "--evry", "2"], "status": ["statu"]}
    for name, words in slips.items():
        assert main(words) == 2
        assert f"Did you mean {name}?" in capsys.readouterr().err


def test_flags_may_stand_between_folders(tmp_path, capsys):
    """argparse alone takes what follows a flag for one folder too many."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert main(["logs", str(tmp_path / "a"), "--lines", "5", str(tmp_path / "b")]) == 2
    text = capsys.readouterr().err
    assert text.startswith("2 problems") and text.count("neither a sweep nor a run") == 2


def test_wrong_words_are_refused_without_torch():
    script = (
        "import sys; from experiments.__main__ import main\n"
        "assert main(['estimate', 'optimizer.lr=-1', '--tokens', 'x']) == 2\n"
        "assert main(['replay', 'nowhere', '--steps', '-1']) == 2\n"
        "assert main(['watch', '--every', '0']) == 2\n"
        "late = {'torch', 'transformers', 'datasets', 'peft'} & set(sys.modules)\n"
        "assert not late, late"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_indented_lines_of_a_refusal_belong_to_the_line_above():
    assert problems_in(ConfigError("a=1: wrong\n  because\nb is wrong\n--c d: no")) == [
        Problem("a=1", "wrong\n  because"), Problem("", "b is wrong"), Problem("--c d", "No"),
    ]  # fmt: skip


def test_a_number_of_a_flag_is_read_as_it_is_written():
    read = number_of(Count)
    assert [read(text) for text in ("1", "65536")] == [1, 65536]
    for text in ("0", "65537", "1.5", "two", "", "inf", "1e3"):
        with pytest.raises(ConfigError, match="a whole number of at least 1 and at most 65536"):
            read(text)
