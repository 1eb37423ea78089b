"""docs/install.md: its commands run from the installed wheel; the container, workflow and citation files."""

import re
import shlex
import tomllib

import pytest
import yaml

from tests.docs.pages import commands, files

from .conftest import ROOT, program
from .test_wheel import SHORT

PAGE = ROOT / "docs" / "install.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_command_of_the_page_runs_from_the_wheel(installed, elsewhere):
    zo = program(installed, elsewhere)
    for name, text in files(PAGE).items():
        (elsewhere / name).parent.mkdir(parents=True)
        (elsewhere / name).write_text(text)
    words = [shlex.split(command.text) for command in commands(PAGE)]
    ours = [rest for first, *rest in words if first == "zo"]
    assert len(ours) > 8 and {rest[0] for rest in ours} >= {
        "doctor",
        "run",
        "sweep",
        "status",
        "report",
        "completion",
    }
    # Shortened, and a busy machine has time to compile the kernels.
    more = {"run": SHORT, "sweep": SHORT, "doctor": ("--seconds", "600")}
    for rest in ours:
        done = zo(
            *rest, *more.get(rest[0], ()), code=None if rest[0] == "doctor" else 0, WANDB_MODE="offline"
        )
        # Which problems a machine has is its own matter.
        assert rest[0] != "doctor" or "agree with torch's" in done.stdout or '"wrong": []' in done.stdout
    assert {path.name for path in elsewhere.iterdir()} == {"experiments", "my-conf", "runs", "report"}


def test_extras_and_commands_that_the_page_names_are_there():
    from experiments.__main__ import parsers

    text = PAGE.read_text()
    for group in re.findall(r"\[([a-z,]+)\]'", text):
        assert set(group.split(",")) <= set(PROJECT["optional-dependencies"]), group
    (table,) = re.findall(r"^\| command \|.*\n\|[-|]*\n((?:\|.*\n)+)", text, re.MULTILINE)
    named = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(parsers()[1]) - {"complete"}


def test_container_and_workflow_name_what_is_here():
    """Neither can be run here: there is no container engine, and no service that runs workflows."""
    steps = (ROOT / "Dockerfile").read_text()
    (extras,) = re.findall(r"/src\[([a-z,]+)\]", steps)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert 'ENTRYPOINT ["zo"]' in steps and "zo" in PROJECT["scripts"]
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["part"]
    runner = (ROOT / ".ci/run").read_text()
    (known,) = re.findall(r"^# \.ci/run PART .*: ([a-z ]+)\.$", runner, re.MULTILINE)
    assert set(job["strategy"]["matrix"]["part"]) <= set(known.split())
    assert job["steps"][-1]["run"].startswith(".ci/run ")


def test_the_citation_says_what_the_package_says():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    assert [author["name"] for author in cited["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]
