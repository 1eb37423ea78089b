"""Links of every page lead somewhere; files, keys and options that pages name exist; examples compile."""

import re
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from experiments.config.compose import CONF, groups
from experiments.config.key import dataclass_in, hints
from experiments.config.run_config import KINDS, RunConfig

from .pages import ROOT, anchors, blocks, files, links, spans

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "experiments/world/README.md",
]
FOLDERS = ("zo", "experiments", "conf", "docs", "tests", "benchmarks", "sweeps", "notebooks")
# Named, but made by their reader or by a run: `conf/local`, and what pages give as text.
WRITTEN = {name for page in PAGES for name in files(page)} | {"conf/local"}


@cache
def anchors_of(path: Path) -> set[str]:
    return anchors(path.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    wrong = []
    for line, target in links(page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            wrong.append(f"{page.name}:{line} {target}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_is_named_exists(page):
    """Paths in spans of code: `docs/papers.md`, `zo/optimizers/`, `experiments/models/shapes.py`."""
    wrong = []
    for line, span in spans(page.read_text()):
        if not re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./*<>-]+", span):
            continue
        pattern = re.sub(r"<\w+>", "*", span.rstrip("/"))
        mine = span in WRITTEN or any(span.startswith(f"{name}/") for name in WRITTEN)
        if not mine and not list(ROOT.glob(pattern)):
            wrong.append(f"{page.name}:{line} {span}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_examples_in_python_compile(page):
    for block in blocks(page.read_text()):
        if block.language == "python":
            compile(block.text, f"{page.name}:{block.line}", "exec")


def test_every_page_is_linked_from_the_readme():
    linked = {target.partition("#")[0] for _, target in links((ROOT / "README.md").read_text())}
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= linked


def keys_of(tree, prefix: str = "") -> set[str]:
    """Dotted keys of a mapping, sections too."""
    found = set()
    for key, value in tree.items():
        found |= {f"{prefix}{key}"} | (
            keys_of(value, f"{prefix}{key}.") if isinstance(value, dict) else set()
        )
    return found


def declared(kind: type, prefix: str = "") -> set[str]:
    """Dotted keys of a dataclass of the configuration, sections too."""
    found = set()
    for name, hint in hints(kind).items():
        inner = dataclass_in(hint)
        found |= {f"{prefix}{name}"} | (declared(inner, f"{prefix}{name}.") if inner else set())
    return found


@cache
@cache  # it reads every file of conf/, and is asked for every name of every page
def keys() -> set[str]:
    """Every key of a configuration: declared in experiments/config, or an argument in a file of conf/."""
    found = declared(RunConfig)
    for section, kinds in KINDS.items():
        found |= set().union(*(declared(kind, f"{section}.") for kind in kinds.values()))
    for path in CONF.rglob("*.yaml"):
        group = path.relative_to(CONF).parts[0]
        if group in ("experiment", "debug", "recipe", "local"):
            continue
        prefix = "" if group == "config.yaml" else f"{group}."
        found |= keys_of(OmegaConf.to_container(OmegaConf.load(path)), prefix)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_keys_and_options_exist(page):
    """`task.k=16`, `peft=lora`: of the configuration's own keys and groups."""
    sections, options = {key.partition(".")[0] for key in keys()}, groups()
    own: dict[str, set[str]] = {group: set() for group in options}
    for name in (name for other in PAGES for name in files(other)):
        own.setdefault(name.split("/")[-2], set()).add(Path(name).stem)
    wrong = []
    for line, span in spans(page.read_text()):
        for key, value in re.findall(r"(?<![\w./-])([a-z_]+(?:\.[a-z_]+)*)=([\w./-]*)", span):
            if "." in key and key.partition(".")[0] in sections and key not in keys():
                wrong.append(f"{page.name}:{line} {key}")
            if key in options and re.match("[a-z]", value) and not {value} <= {*options[key], *own[key]}:
                wrong.append(f"{page.name}:{line} {key}={value}")
    assert wrong == []


def test_every_group_and_key_has_its_line_in_configuration():
    page = (ROOT / "docs" / "configuration.md").read_text()
    lines = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))  # groups; keys are in test_declarations.py
    assert {*groups(), "recipe", "local"} <= lines
    sections = set(re.findall(r"^\| `(\w+)[.`]", page, re.MULTILINE))
    fixed = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    assert isinstance(fixed, dict)
    assert {*fixed} - {"defaults"} <= sections
    for group in ("schedule", "tracker", "launcher", "debug"):
        line, *_ = re.findall(rf"^\| `{group}` \|.*", page, re.MULTILINE)  # first comes the table of groups
        assert set(groups()[group]) <= set(re.findall(r"`([\w-]+)`", line))
