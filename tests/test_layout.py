"""The layout keeps its rules: names found in strings exist, modules are short, and no two have one name."""

import ast
import importlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import zo.optimizers
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


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_library_needs_torch_alone_and_its_integrations_what_they_integrate():
    """zo/integrations may import the libraries that it works inside; nothing else in zo imports it."""
    allowed = {"torch", "triton", "zo", *sys.stdlib_module_names}
    for path in sorted((ROOT / "zo").rglob("*.py")):
        names, here = imported(path), path.relative_to(ROOT / "zo").parts[0]
        more = {"accelerate", "transformers"} if here == "integrations" else set()
        assert {name.partition(".")[0] for name in names} <= allowed | more, path
        if here != "integrations":
            assert not any(name.startswith("zo.integrations") for name in names), path


def test_no_two_modules_have_one_name():
    for package in ("zo", "experiments"):
        counts = Counter(path.name for path in SOURCES if path.relative_to(ROOT).parts[0] == package)
        del counts["__init__.py"]
        assert [name for name, count in counts.items() if count > 1] == []


def test_modules_are_short():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in SOURCES}
    assert {path: count for path, count in lengths.items() if count >= MOST_LINES} == {}


FORM = (
    0.15  # constructors and checks, of the code lines of zo/optimizers; 38 % before fields took their place
)
FORMAL = r"__init__|__post_init__|begin|problems|check|refuse"
PAPERS = {"mezo.py": 81, "fzoo.py": 81, "adamezo.py": 81}  # code lines of evosax's open_es.py, at d4b4127708


def _code_lines(node: ast.AST, lines: set[int]) -> int:
    """Lines of a node that are neither blank, comment nor docstring."""
    return sum(1 for line in lines if node.lineno <= line <= node.end_lineno)  # type: ignore[attr-defined]


def _lines_of_code(path: Path) -> tuple[ast.Module, set[int]]:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = {
        i for i, line in enumerate(text.splitlines(), 1) if line.strip() and not line.strip().startswith("#")
    }
    for node in ast.walk(tree):
        first = (
            node.body[0]
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
            else None
        )
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            lines -= set(range(first.lineno, (first.end_lineno or 0) + 1))
    return tree, lines


def test_optimizers_are_formulas_rather_than_constructors():
    """Counted are __init__, __post_init__, begin, problems, and functions that check or refuse."""
    form = total = 0
    for path in sorted((ROOT / "zo" / "optimizers").glob("*.py")):
        tree, lines = _lines_of_code(path)
        total += len(lines)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and re.match(FORMAL, node.name):
                form += _code_lines(node, lines)
        assert len(lines) < PAPERS.get(path.name, 10**6), path.name
    assert form / total < FORM, f"{form} of {total} lines"


def test_optimizers_are_abstract_or_final():
    def below(kind: type) -> Iterator[type]:
        for child in kind.__subclasses__():
            yield from (child, *below(child))

    classes = {
        kind for kind in below(zo.optimizers.Optimizer) if kind.__module__.startswith(("zo.", "experiments."))
    }
    assert len(classes) > 25
    neither = [k.__name__ for k in classes if bool(k.__abstractmethods__) == getattr(k, "__final__", False)]
    assert neither == [], "mark a class @final, or leave a method abstract"
    # A notebook that another test imported may change the arithmetic of a final class for one figure.
    derived = {base for kind in classes for base in kind.__bases__}
    assert [k.__name__ for k in classes if getattr(k, "__final__", False) and k in derived] == []
