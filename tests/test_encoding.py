"""Text files are UTF-8 whatever the locale: no text is read or written without saying so."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for part in ("zo", "experiments", "benchmarks") for path in (ROOT / part).rglob("*.py"))


def unsaid(tree: ast.AST) -> Iterator[int]:
    """Lines on which a text file is opened without an encoding."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        owner = getattr(node.func, "value", None)
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        keywords = {keyword.arg for keyword in node.keywords}
        if name in ("read_text", "write_text") and "encoding" not in keywords:
            yield node.lineno
        if name not in ("open", "fdopen") or (name == "open" and getattr(owner, "id", "") == "os"):
            continue
        words = [
            arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
        ]
        words += [
            k.value.value for k in node.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)
        ]
        binary = any(set(str(word)) <= set("rwaxb+") and "b" in str(word) for word in words)
        if not binary and "encoding" not in keywords:
            yield node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_file_is_opened_without_an_encoding(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert list(unsaid(tree)) == [], "say encoding='utf-8' there"


def test_the_rule_sees_what_it_should():
    text = "open(p)\nopen(p, 'rb')\np.open('w')\np.read_text()\np.write_text(t, encoding='utf-8')\nos.open(p, 1)\n"
    assert list(unsaid(ast.parse(text))) == [1, 3, 4]


ASCII = """
import json, sys
from pathlib import Path
from experiments.rundir.folder import RunFolder
from experiments.rundir.json_files import read_configuration
folder = RunFolder(Path(sys.argv[1]))
sections = ("model", "task", "peft", "optimizer")
folder.write_config({name: {"options": ["差", "好"], "_target_": "x"} for name in sections})
folder.write("status.json", {"state": "差"})
config, wrong = read_configuration(folder.path)
assert wrong is None and config["task"]["options"] == ["差", "好"], wrong
assert folder.status() == {"state": "差"}
"""


def test_letters_beyond_ascii_in_a_locale_without_them(tmp_path):
    """The locale C without Python's UTF-8 mode writes ASCII unless told otherwise."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    script = tmp_path / "script.py"
    script.write_text(ASCII, encoding="utf-8")
    subprocess.run(
        [sys.executable, script, tmp_path / "run"], env=environment, cwd=ROOT, check=True, timeout=120
    )
    assert "差".encode() in (tmp_path / "run" / "config.yaml").read_bytes()
