"""Wrong input: everything wrong in one list, with the key, what is allowed and the nearest name."""

import shutil

import pytest

from experiments.commands.launch import main
from experiments.config.compose import CONF, compose
from experiments.config.problems import listing
from experiments.config.run_options import Budget


def only(override: str) -> str:
    """The sentence about the one problem of a command line."""
    problems = compose([override]).problems
    assert [p.where for p in problems] == [override]
    return problems[0].what


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=tiny-cml", "Did you mean tiny-clm?"),
        ("optimizer=fzo", "Options: "),
        ("optimzer=mezo", "Did you mean optimizer?"),
        ("optimizer.epz=1", "Did you mean optimizer.eps?"),
        ("lr=1", "Did you mean optimizer.lr?"),
        ("task.lr=1", "Did you mean optimizer.lr?"),
        ("optimizer.betas=[0.9,0.99]", "no key optimizer.betas"),
        ("batch.size.x=1", "no key batch.size.x"),
        ("task.templates.causal.promt=x", "Did you mean task.templates.causal.prompt?"),
        ("peft.r=4", "Keys of peft: name"),
        ("peft=prefx", "Did you mean prefix?"),
        ("peft.name=adapter", "none"),
        ("batch.size=0", "a whole number of at least 1"),
        ("batch.size=many", "a whole number of at least 1"),
        ("batch.size=true", "a whole number of at least 1"),
        ("batch.size=2.5", "a whole number of at least 1"),
        ("budget.steps=-5", "a whole number of at least 1 and at most 1000000000, or null"),
        ("budget.minutes=0", "a number above 0 and at most 1000000000, or null"),
        ("seed=1.5", "a whole number of at least 0"),
        ("optimizer.n=abc", "a whole number"),
        ("optimizer.lr=fast", "a number"),
        ("optimizer.lr=null", "a number"),
        ("model.dtype=float8", "float32 or bfloat16 or float16"),
        ("probes_per_forward=some", "auto or all, or a whole number of at least 1"),
        ("save=perhaps", "true or false"),
        ("stop.on_nan=ignore", "stop or skip"),
        ("batch=3", "a mapping with the keys size, micro"),
        ("budget.steps=null", "exactly one of steps, forward_passes and minutes"),
        ("task.train=0", "at least 1"),
        ("task.columns.x=3", "a mapping of names to text"),
        ("optimizer._target_=zo.optimizers.FZO", "zo.optimizers has no 'FZO'"),
        ("optimizer._target_=zoo.FZOO", "no module 'zoo'"),
        ("optimizer._target_=3", "This cannot be called"),
        ("schedule._target_=[]", "This cannot be called"),
        ("+batch.half=1", "Nothing is added"),
        ("++batch.size=1", "Write batch.size=value"),
        ("+experiment=x", "Nothing is added"),
        ("~peft", "Nothing is taken out"),
        ("seed=0,1", "add -m to run each"),
        ("model=[tiny-clm,tiny-mlm]", "One option is chosen"),
        ("schedule=null", "Options: constant, cosine, linear"),
        ("hydra.run.dir=x", "Hydra's own settings have no effect"),
        ("hydra/launcher=submitit_slurm", "launcher=local or launcher=slurm"),
        ("launcher=slrm", "Options: local"),
        ("recipe=tiny-clm-fzoo", "no key recipe"),
        ("model@other=tiny-clm", "A group's place"),
        ("seed", "Write key=value"),
        ("task.name=a b(", "Write key=value"),
        ("seed=${nothing}", "nothing"),
    ],
)
def test_one_mistake_is_named(override, said):
    assert said in only(override)


def test_two_budgets_are_refused():
    what = [p.what for p in compose(["budget.steps=3", "budget.minutes=1"]).problems]
    assert what == ["exactly one of steps, forward_passes and minutes is set, the others are null; "
                    "steps and minutes are set."]  # fmt: skip


def test_several_mistakes_come_in_one_message(capsys):
    wrong = [
        "optimizer.epz=1",
        "model=tiny-cml",
        "batch.size=0",
        "+x=1",
        "seed=1.5",
        "optimzer=mezo",
        "--foo",
    ]
    assert main(["budget.steps=5", *wrong]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"{len(wrong)} problems")
    for override in wrong:
        assert f"\n  {override}\n" in captured.err
    assert "budget.steps" not in captured.err


def test_a_broken_file_of_the_users_own_is_named(tmp_path, monkeypatch):
    shutil.copytree(CONF, tmp_path / "conf")
    local = tmp_path / "conf" / "local" / "default.yaml"
    local.parent.mkdir(exist_ok=True)
    monkeypatch.setattr("experiments.config.compose.CONF", tmp_path / "conf")
    for text in (
        "# @package _global_\nbatch: {size: 16\n",
        "# @package _global_\ndefaults:\n  - /model: nix\n",
    ):
        local.write_text(text)
        assert [p.where for p in compose([]).problems] == ["conf/"]
    local.write_text("# @package _global_\nbatch: {size: 16\nmodel:\n  name: x\n")
    said = listing(compose([]).problems).splitlines()
    # Every line of a message of several stands below its place, and its own indentation is kept.
    assert said[2] == "  conf/" and all(line.startswith("      ") for line in said[3:-2])
    assert any(line.startswith("        in ") and "line 2, column 8" in line for line in said)
    local.write_text("# @package _global_\nbatch: {sise: 16}\nfoo: 1\n")
    assert {p.where for p in compose([]).problems} == {"batch.sise=16", "foo=1"}
    local.unlink()
    (local.parent / "model").mkdir()
    (local.parent / "model" / "alist.yaml").write_text("- 1\n")
    assert [p.where.partition("=")[0] for p in compose(["model=alist"]).problems] == ["model"]


@pytest.mark.parametrize(
    "flags", [["--cfg"], ["--cfg", "hydra"], ["--resolve"], ["-p", "model"], ["--cfgs", "job"]]
)
def test_wrong_flags_are_refused(flags, capsys):
    assert main(flags) == 2
    assert flags[0] in capsys.readouterr().err or flags[0] == "-p"


def test_what_looks_odd_but_is_right():
    config = compose(
        ["budget.forward_passes=1e3", "model.revision=1234567", "optimizer.lr=1", "probes_per_forward=4",
         "task.columns={extra: idx}", "experiment=null"]
    ).config  # fmt: skip
    assert config is not None
    assert config.budget == Budget(forward_passes=1000)
    assert config.model.revision == "1234567"
    assert config.optimizer.lr == 1.0
    assert isinstance(config.optimizer.lr, float)
    assert config.task.columns == {"sentence": "sentence", "label": "label", "extra": "idx"}


@pytest.mark.parametrize(
    "good",
    ["task.source.test=0", "task.source.subset=3", "model.name=7", "experiment=1", "task.source.test=null"],
)
def test_a_value_that_is_coerced_alone_is_coerced_beside_a_mistake_elsewhere(good, capsys):
    """Sections that are right have values of their declared types, whatever another section says."""
    alone = main([good, "--cfg", "job"])
    said = capsys.readouterr()
    assert main([good, "stop.every=x", "--cfg", "job"]) == 2
    both = capsys.readouterr()
    assert "stop.every=x" in both.err + both.out
    assert (alone == 0) == (good not in both.err + both.out), said
