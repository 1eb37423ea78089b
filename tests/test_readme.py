"""README.md's library example runs and learns; the table of methods in docs/methods.md is conf/optimizer.

Its commands and links are in tests/docs, with those of docs/.
"""

import re
from pathlib import Path

import yaml

import zo.optimizers
from experiments.config.compose import CONF, groups

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
METHODS = (ROOT / "docs/methods.md").read_text(encoding="utf-8")


def test_ten_lines_on_a_model_of_ones_own():
    import torch

    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    torch.manual_seed(0)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    inputs, model = names["inputs"], names["model"]
    accuracy = (model(inputs).argmax(1) == (inputs.sum(1) > 0)).float().mean().item()
    assert accuracy > 0.8  # chance is 0.5, and 256 draws of a fair coin pass 0.65 once in a million
    statements = [line for line in code.splitlines() if line.strip() and not line.startswith("import")]
    assert len(statements) <= 10


def rows() -> dict[str, list[str]]:
    """The cells of the table of methods, by method."""
    (table,) = re.findall(r"^\| method \|.*\n\|[-:| ]*\n((?:\|.*\n)+)", METHODS, re.MULTILINE)
    found = {}
    for line in table.splitlines():
        first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`(\w+)`", first):
            assert name not in found, name
            found[name] = cells
    return found


def test_the_table_of_methods_is_conf_optimizer():
    assert set(rows()) == set(groups()["optimizer"])


def test_forward_passes_and_state_are_those_of_the_methods():
    """At the YAML's own arguments: 2n of n = 1 is 2, N + 1 of N = 8 is 9; state none is a `state_copies` of 0."""
    import torch

    for name, (_, forwards, state, *_) in rows().items():
        arguments = yaml.safe_load((CONF / "optimizer" / f"{name}.yaml").read_text())
        module, _, kind = arguments.pop("_target_").rpartition(".")
        if module != "zo.optimizers":
            assert (forwards, state) == ("0", "none")  # runs without steps
            continue
        weights = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.LayerNorm(64))
        arguments = {k: number(v) for k, v in arguments.items() if not str(v).startswith("${")}
        optimizer = getattr(zo.optimizers, kind)(weights, **arguments)
        formula = forwards.partition(",")[0].replace("2n", "2*n").replace("N", str(arguments.get("n")))
        said = eval(formula, {"n": arguments.get("n", 1)})
        assert said == optimizer.forward_passes, name
        assert (state == "none") <= (optimizer.state_copies == 0 and not optimizer.state_tensors), name


def number(value):
    """1e-4 is text to YAML 1.1."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
