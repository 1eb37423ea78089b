"""The layout keeps its rules: names found in strings exist, modules are short, and no two have one name."""

import ast
import importlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.config.run_id import MOVED_TARGETS, current_target

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for package in ("zo", "experiments") for path in (ROOT / package).rglob("*.py"))
TEXTS = [path for folder in ("conf", "sweeps", "docs") for path in sorted((ROOT / folder).rglob("*.yaml"))]
MOST_LINES = 350
PLACEHOLDERS = {"zo.optimizers.X"}


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return bool(module) and hasattr(importlib.import_module(module), attribute)
    return True


def strings() -> Iterator[tuple[Path, str]]:
    """Every string constant that is a dotted name of ours, and the file it stands in."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.fullmatch(r"(zo|experiments)(\.\w+)+", node.value)
            ):
                yield path, node.value


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_targets_of_yaml_files_exist(path):
    targets = re.findall(r"_target_:\s*([\w.]+)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not resolves(target)] == []


def test_modules_named_in_strings_exist():
    """import-linter sees imports, not strings that are imported: `_target_`, import_module, python -m."""
    found = [(str(path.relative_to(ROOT)), name) for path, name in strings() if name not in MOVED_TARGETS]
    assert found, "the test reads the wrong files"
    assert [(path, name) for path, name in found if not resolves(name)] == []


def test_old_targets_lead_to_classes_of_today():
    assert all(resolves(current_target(old)) and old != current_target(old) for old in MOVED_TARGETS)
    assert current_target("zo.optimizers.FZOO") == "zo.optimizers.FZOO"


def test_no_two_modules_have_one_name():
    for package in ("zo", "experiments"):
        counts = Counter(path.name for path in SOURCES if path.relative_to(ROOT).parts[0] == package)
        del counts["__init__.py"]
        assert [name for name, count in counts.items() if count > 1] == []


def test_modules_are_short():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in SOURCES}
    assert {path: count for path, count in lengths.items() if count >= MOST_LINES} == {}
