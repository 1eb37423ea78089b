"""conf/experiment: the papers' settings are valid, say where they are from, and run."""

import re

import pytest
import yaml

from experiments.commands.expected import expected
from experiments.config.compose import CONF, compose, groups
from experiments.config.peft_config import Prefix
from experiments.config.run_id import decisive, method_of
from experiments.config.run_options import Budget
from experiments.launching.sweep_file import FOLDER as SWEEPS
from experiments.models.source import model_name
from experiments.papers import STEPLESS, published
from experiments.papers.unpublished import UNPUBLISHED, unpublished

PRESETS = [name for name in groups()["experiment"] if "/" in name]
DECODERS = [name for name in PRESETS if not name.endswith("roberta-large")]
# Keys in which presets of one paper may differ: the model, and what FZOO and MeZO change for the largest.
OWN = {"defaults", "experiment", "model", "methods", "select"}
# Methods of FZOO's Table 7, whose rates are unpublished and stand in sweeps/papers/fzoo-7.yaml.
SEARCHED = {"zosgd", "zomomentum", "zosign", "zoconservative", "zoadam"}
ISSUE = {
    "mezo": "roberta-large opt-125m opt-350m opt-1.3b opt-2.7b opt-13b opt-30b opt-66b phi-2 llama-3-8b",
    "fzoo": "roberta-large opt-125m opt-350m opt-1.3b opt-2.7b opt-13b opt-30b opt-66b phi-2 llama-3-8b",
    "adamezo": "opt-1.3b llama-3.2-3b roberta-large",
}
# One of each paper and family; the others differ from it in their model, and are slow tests.
FIRST = {"mezo/opt-13b", "fzoo/opt-13b", "adamezo/opt-1.3b", "hizoo/opt-13b"} | {
    f"{paper}/roberta-large" for paper in ISSUE
}
# FZOO's abstract names the model, no table at hand has it.
NUMBERLESS = {"mezo/opt-350m", "fzoo/opt-350m"}
# What stands for the models of the hub: the same settings on a model and a task that are part of the repository.
SMALL = [
    "task=sentiment", "task.train=4", "task.dev=2", "task.test=2", "task.k=null",
    "budget.steps=2", "batch.size=2", "save=false",
]  # fmt: skip


def config_of(*overrides):
    composed = compose(overrides)
    assert composed.problems == []
    assert composed.config is not None
    return composed.config


def text_of(preset):
    return (CONF / "experiment" / f"{preset}.yaml").read_text()


def test_the_presets_are_there():
    assert {f"{paper}/{model}" for paper, models in ISSUE.items() for model in models.split()} <= set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_named_by_its_method_and_model_and_names_the_tables_that_have_them(preset):
    """Its command composes and has published numbers."""
    (command,) = re.findall(r"^# .*: python launch\.py (.*)$", text_of(preset), re.MULTILINE)
    config = config_of(*command.split())
    model = model_name(config.model)
    assert preset == f"{method_of(config)}/{model}" == config.experiment
    tables = {f"{n.paper} {n.table}" for n in published() if (n.method, n.model) == tuple(preset.split("/"))}
    said = re.search(r"^# Published, by python -m experiments expected: (.*)$", text_of(preset), re.MULTILINE)
    assert said is not None
    assert set(said[1].split(", ")) == (tables or {"nothing"})
    assert bool(expected(config)) == bool(tables)
    assert tables or preset in NUMBERLESS


def content_of(preset):
    """The file's own keys, expressions as they are written."""
    return yaml.safe_load(text_of(preset))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_states_its_numbers_in_its_own_file_and_says_where_they_are_from(preset):
    """Beside it Hydra reads the files of groups that everybody has, and no other."""
    content = content_of(preset)
    chosen = [name.removeprefix("override /") for entry in content["defaults"] for name in entry]
    assert set(chosen) == {"model", "task", "optimizer", "schedule"}
    assert {"budget", "batch", "seeds", "task", "select", "select_by", "methods"} <= set(content)
    methods = content["methods"]
    assert next(iter(methods)) == preset.partition("/")[0] and set(methods) <= set(groups()["optimizer"])
    for method in methods:
        (comment,) = re.findall(rf"((?:^  #.*\n)+)^  {method}:$", text_of(preset), re.MULTILINE)
        assert re.search(r"Table \d|README|code|paper|unpublished", comment)
        if "our choice" in comment or (method, "none") in UNPUBLISHED:
            assert "unpublished" in comment or "no values of it were published" in comment


@pytest.mark.parametrize("paper", sorted({name.partition("/")[0] for name in PRESETS}))
def test_presets_of_a_paper_agree_but_in_their_model(paper):
    presets = [name for name in DECODERS if name.startswith(f"{paper}/")]
    contents = [content_of(name) for name in presets]
    for content in contents:
        shared = {key: value for key, value in content.items() if key not in OWN}
        assert shared == {key: value for key, value in contents[0].items() if key not in OWN}
    large = [name for name, content in zip(presets, contents, strict=True) if content["select"] == "last"]
    assert large == [name for name in presets if paper == "adamezo" or name.endswith(("-30b", "-66b"))]


def test_a_method_has_the_same_values_in_every_preset():
    """But for FZOO's on the two small models, and MeZO's on WSC beside FZOO's own on OPT-13B."""
    for presets in (DECODERS, [name for name in PRESETS if name not in DECODERS]):
        first = content_of(presets[0])["methods"]
        for preset in presets:
            methods = content_of(preset)["methods"]
            different = {name for name in first if methods[name] != first[name]}
            small = preset.endswith(("opt-125m", "opt-350m"))
            assert different == ({"fzoo"} if small else {"mezo"} if preset == "fzoo/opt-13b" else set())
            assert set(methods) == set(first)


def test_every_published_row_has_values_in_its_preset_or_a_search_in_its_sweep():
    rows = {(n.paper, n.model, n.method, n.table) for n in published() if n.method not in STEPLESS}
    without = {
        (paper, method, table)
        for paper, model, method, table in rows
        if f"{paper}/{model}" in PRESETS and method not in content_of(f"{paper}/{model}")["methods"]
    }
    assert without == {("fzoo", method, "7") for method in SEARCHED}
    assert set(re.findall(r"optimizer: (\w+)", (SWEEPS / "papers" / "fzoo-7.yaml").read_text())) >= SEARCHED
    of_others = {f"{paper}/{model}" for paper, model, _, _ in rows} - set(PRESETS)
    assert of_others == set(), "a table without a preset"


def test_values_follow_the_method_the_mode_and_the_task():
    lr = {
        (): 5e-5,
        ("optimizer=mezo",): 1e-6,
        ("optimizer=mezo", "task=wsc"): 1e-6,  # FZOO's README
        ("optimizer=mezo", "peft=lora"): 1e-4,
        ("optimizer=mezo", "peft=prefix"): 1e-2,
        ("optimizer=mezo", "peft=prefix", "optimizer.lr=5e-3"): 5e-3,
        ("optimizer=adamw",): 1e-5,
        ("optimizer=hizool",): 1e-6,
    }
    found = {more: config_of("experiment=fzoo/opt-13b", *more).optimizer.lr for more in lr}
    assert found == lr
    small = [config_of(f"experiment=fzoo/{model}").optimizer.lr for model in ("opt-125m", "opt-350m")]
    assert small == [1e-4, 1e-4]


def test_mezo_on_wsc_has_the_rate_of_whoever_published_it():
    """1e-6 in FZOO's README, for OPT-13B; 1e-7 by MeZO's authors (issue 15), which the other presets have."""

    def lr(experiment):
        return config_of(f"experiment={experiment}", "optimizer=mezo", "task=wsc").optimizer.lr

    assert [lr(name) for name in ("fzoo/opt-13b", "mezo/opt-13b", "fzoo/opt-30b")] == [1e-6, 1e-7, 1e-7]
    assert "1e-6 for MeZO on OPT-13B and WSC" in " ".join(text_of("fzoo/opt-13b").replace("#", "").split())


@pytest.mark.parametrize(
    ("preset", "lr"),
    [("adamezo/opt-1.3b", 1e-5), ("adamezo/roberta-large", 5e-5), ("hizoo/opt-13b", 1e-2)],
)
def test_a_prefix_has_values_that_are_marked_as_unpublished(preset, lr):
    config = config_of(f"experiment={preset}", "peft=prefix")
    assert (config.optimizer.lr, config.optimizer.options["eps"]) == (lr, 1e-1)
    assert isinstance(config.peft, Prefix)
    assert (config.peft.tokens, config.batch.size) == (5, 64 if "roberta" in preset else 16)
    assert unpublished(config)
    text = " ".join(text_of(preset).replace("#", "").split())
    assert re.search(r"unpublished, our choice: (lr and ε with a prefix|adapters)", text)


def test_adamezos_seeds_draw_the_examples():
    """Its tables are over four randomly sampled subsets of the data, with every model."""
    presets = [name for name in PRESETS if name.startswith("adamezo/")]
    assert {config_of(f"experiment={name}").seeds.split for name in presets} == {None}


@pytest.mark.parametrize("preset", ["adamezo/opt-1.3b", "adamezo/roberta-large", "hizoo/opt-13b"])
def test_a_preset_with_a_prefix_takes_steps(preset, runs):
    """Thirteen, so that AdaMeZO's two last are past its warm-up."""
    model = "tiny-mlm" if preset.endswith("/roberta-large") else "tiny-clm"
    small = [each.replace("budget.steps=2", "budget.steps=13") for each in SMALL]
    result = runs(f"experiment={preset}", f"model={model}", "peft=prefix", *small)
    assert (result["status"], result["steps"], result["peft"]) == ("finished", 13, "prefix")


def test_fine_tuning_has_its_own_budget_and_schedule():
    config = config_of("experiment=fzoo/opt-13b", "optimizer=adamw")
    assert config.budget == Budget(steps=625)
    assert config.schedule.target == "zo.schedules.Linear"


@pytest.mark.parametrize("preset", [name for name in PRESETS if not name.endswith("roberta-large")])
def test_decoders_are_in_float16_rounded_to_nearest_as_the_authors_have_them(preset):
    """And fine-tuning with Adam, a column of the same tables, has fp32 master weights."""
    config, adam = config_of(f"experiment={preset}"), config_of(f"experiment={preset}", "optimizer=adamw")
    small = preset.endswith(("125m", "350m"))
    assert config.model.dtype == ("float32" if small else "float16")
    assert config.update == adam.update == "auto"
    assert (decisive(config, 1)["update"], decisive(adam, 1)["update"]) == ("nearest", "master")


def test_auto_has_the_hash_of_what_it_comes_to():
    for optimizer, same, other in (("mezo", "nearest", "master"), ("adamw", "master", "nearest")):
        auto, *stated = (
            decisive(config_of(f"optimizer={optimizer}", f"update={update}"), 1)
            for update in ("auto", same, other)
        )
        assert auto == stated[0] != stated[1]


def test_the_papers_column_of_adam_does_not_diverge_in_16_bits(runs):
    """sweeps/papers/adamezo-3.yaml's adamw at the largest rate of its grid; in float16 eps = 1e-8 is 0."""
    choices = ("experiment=adamezo/opt-1.3b", "optimizer=adamw", "optimizer.lr=8e-5", "model=tiny-clm",
               "model.dtype=float16", *SMALL, "budget.steps=6")  # fmt: skip
    result = runs(*choices)
    assert (result["status"], result["steps"], result["method"]) == ("finished", 6, "adamw")
    assert result["skipped_steps"] < 6 and result["loss_after"] < 10


def test_a_mode_without_a_value_is_refused_unless_one_is_given():
    (problem,) = compose(["experiment=mezo/opt-13b", "peft=ia3"]).problems[:1]
    assert problem.where == "optimizer.lr"
    assert problem.what.startswith("The papers give no value for peft.name=ia3, only for none, lora, prefix.")
    config_of("experiment=mezo/opt-13b", "peft=ia3", "optimizer.lr=1e-2", "optimizer.eps=1e-2")


@pytest.mark.parametrize(
    "preset", [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS]
)
def test_a_preset_takes_two_steps(preset, runs):
    model = "tiny-mlm" if preset.endswith("/roberta-large") else "tiny-clm"
    result = runs(f"experiment={preset}", f"model={model}", *SMALL)
    assert (result["status"], result["steps"], result["method"]) == ("finished", 2, preset.partition("/")[0])
