"""Docstrings begin with a sentence: a verb and what it acts on, never a relative word or a preposition."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmarks", "examples", "experiments", "notebooks", "tools", "zo")
RELATIVE = {
    "how",
    "such",
    "that",
    "those",
    "what",
    "when",
    "where",
    "whether",
    "which",
    "while",
    "who",
    "whose",
    "why",
}
PREPOSITIONS = {
    "about", "above", "after", "along", "among", "as", "at", "before", "behind", "below", "beside", "between", "by",
    "down", "during", "for", "from", "in", "inside", "into", "near", "of", "off", "on", "onto", "out", "over", "past",
    "per", "since", "through", "till", "to", "toward", "towards", "under", "until", "up", "upon", "with", "within",
    "without",
}  # fmt: skip


def first_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the place and the first line of each docstring of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                name = getattr(node, "name", "the module")
                yield f"{path.relative_to(ROOT)}: {name}", text.splitlines()[0]


def opens_badly(line: str) -> bool:
    """Returns True if a first line opens with punctuation, a relative word or a preposition."""
    word = line.split()[0].rstrip(",.:;").lower()
    return not word or not line[0].isalnum() or word in RELATIVE | PREPOSITIONS


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_begin_with_a_sentence(package):
    lines = [entry for path in sorted((ROOT / package).rglob("*.py")) for entry in first_lines(path)]
    assert lines
    wrong = [f"{place}: {line}" for place, line in lines if opens_badly(line)]
    assert not wrong, "\n".join(wrong)


def test_the_rule_tells_sentences_from_clauses():
    assert not any(
        map(opens_badly, ("Returns the losses.", "A run of a sweep.", "8-hex-digit key.", "n numbers: mean."))
    )
    assert all(
        map(
            opens_badly,
            ("Whether it ended.", "Of a key.", "With what is escaped.", ", by a key.", "--where x"),
        )
    )
