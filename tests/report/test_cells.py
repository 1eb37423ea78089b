"""What a cell is: chosen on dev, whatever test says; every run accounted for; seeds of one setting together."""

import json
import random

import pytest
import yaml

from experiments.config.compose import compose
from experiments.report.cells import cells_of
from experiments.report.comparison import comparison
from experiments.report.runs import SMOKE, read_runs
from tests.report.made import dev_rows, run


def cells(path):
    return cells_of(read_runs([path]))


def test_the_setting_is_the_best_on_dev_and_never_the_best_on_test(tmp_path):
    # Test and dev disagree for every setting: the order on one is the reverse of the other.
    for rank, lr in enumerate((1e-5, 1e-4, 1e-3)):
        for seed in (0, 1):
            run(tmp_path, seed=seed, optimizer__lr=lr, dev=0.6 + 0.1 * rank, after=0.9 - 0.1 * rank)
    (cell,) = cells(tmp_path)
    assert cell.chosen is not None and cell.chosen.label == "lr 0.001, constant"
    assert (cell.tries, cell.n, cell.mean) == (3, 2, pytest.approx(0.7))
    assert cell.why == "best on dev of 3 settings (seeds 0, 1)"
    # Test alone changes: another number, the same choice.
    for file in tmp_path.rglob("result.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "after": random.random()}))
    (again,) = cells(tmp_path)
    assert again.chosen is not None and again.chosen.key == cell.chosen.key and again.mean != cell.mean


def test_settings_are_judged_by_the_seeds_that_all_of_them_have(tmp_path):
    run(tmp_path, seed=0, optimizer__lr=1e-4, dev=0.80)
    # The other was better with the shared seed and had bad luck with two more, which are no reason to drop it.
    for seed, dev in enumerate((0.81, 0.50, 0.40)):
        run(tmp_path, seed=seed, optimizer__lr=1e-3, dev=dev, after=0.6 + 0.1 * seed)
    (cell,) = cells(tmp_path)
    assert cell.chosen is not None and cell.chosen.label == "lr 0.001, constant"
    assert cell.why.endswith("(seed 0)") and cell.n == 3
    assert (cell.mean, cell.deviation) == (pytest.approx(0.7), pytest.approx(0.1))


def test_dev_is_that_of_the_weights_that_are_reported(tmp_path):
    # One looks better for a moment, the other at the end, and with select=last the end is what test is of.
    run(tmp_path, optimizer__lr=1e-3, dev=0.9, rows=dev_rows(0.9, 0.5))
    run(tmp_path, optimizer__lr=1e-4, dev=0.7, rows=dev_rows(0.6, 0.7))
    for select, lr in (("best", 1e-3), ("last", 1e-4)):
        for path in tmp_path.rglob("config.yaml"):
            path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "select": select}))
        (cell,) = cells(tmp_path)
        assert cell.chosen is not None and cell.chosen.differs["optimizer.lr"] == lr


def test_equal_settings_are_told_apart_by_the_loss_on_dev(tmp_path):
    for lr, loss in ((1e-5, 0.5), (1e-4, 0.3), (1e-3, 0.4)):
        rows = dev_rows(0.6, 0.8, 0.7, losses=(0.1, loss, 0.1))
        run(tmp_path, optimizer__lr=lr, dev=0.8, rows=rows)
    (cell,) = cells(tmp_path)
    assert cell.chosen is not None and cell.chosen.differs["optimizer.lr"] == 1e-4


def test_equal_settings_that_report_their_last_weights_are_told_apart_by_the_loss_of_those(tmp_path):
    for lr, losses in ((1e-4, (0.1, 0.4)), (1e-3, (0.5, 0.3))):
        run(tmp_path, optimizer__lr=lr, dev=0.8, rows=dev_rows(0.8, 0.8, losses=losses))
    for path in tmp_path.rglob("config.yaml"):
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "select": "last"}))
    (cell,) = cells(tmp_path)
    assert cell.chosen is not None and cell.chosen.differs["optimizer.lr"] == 1e-3


@pytest.mark.parametrize(
    ("devs", "said"), [((0.6, None), "runs without dev"), ((0.6, 0.7), "no seed in common")]
)
def test_without_dev_or_common_seeds_nothing_is_chosen(tmp_path, devs, said):
    run(tmp_path, seed=0, optimizer__lr=1e-4, dev=devs[0], after=0.9)
    run(tmp_path, seed=0 if devs[1] is None else 1, optimizer__lr=1e-3, dev=devs[1], after=0.8)
    (cell,) = cells(tmp_path)
    assert cell.chosen is None and cell.mean is None and cell.n == 0
    assert cell.why.startswith("not chosen on dev") and said in cell.why
    assert [setting.mean for setting in cell.settings] == [0.9, 0.8]  # both are there to be read


def test_the_only_setting_needs_no_dev(tmp_path):
    run(tmp_path, after=0.9)
    run(tmp_path, optimizer__lr=1e-4, after=None, status="failed")
    (cell,) = cells(tmp_path)
    assert cell.mean == 0.9 and cell.why == "the only one with a result of 2 tried"


def test_a_diverged_run_counts_and_one_without_a_look_at_dev_is_never_chosen(tmp_path):
    run(tmp_path, seed=0, optimizer__lr=1.0, status="diverged", dev=None, after=0.99)
    run(tmp_path, seed=0, optimizer__lr=1e-3, dev=0.6, after=0.6)
    run(tmp_path, seed=1, optimizer__lr=1e-3, dev=0.5, after=0.4, status="diverged")
    (cell,) = cells(tmp_path)
    assert cell.chosen is not None and cell.chosen.differs["optimizer.lr"] == 1e-3
    assert (cell.diverged, cell.n, cell.mean) == (2, 2, pytest.approx(0.5))
    assert any("seed 1 diverged" in note for note in comparison(read_runs([tmp_path])).notes)


def test_every_run_is_accounted_for(tmp_path):
    run(tmp_path, seed=0, name="aaaaaaaa")
    run(tmp_path, seed=1, status="failed", after=None, name="aaaaaaaa")
    run(tmp_path, seed=2, status="stopped", after=None, name="aaaaaaaa")
    run(tmp_path, seed=3, status="queued", after=None, name="aaaaaaaa")
    run(tmp_path, seed=4, status="running", after=None, name="aaaaaaaa")  # by a process that is gone
    planned = [
        {
            "folder": f"../../default/m-t-mezo-none/aaaaaaaa/seed{seed}",
            "overrides": ["task=t", f"seed={seed}"],
        }
        for seed in (0, 1, 5)
    ]
    planned += [{"folder": "../../default/opt-1.3b-u-fzoo-lora/bbbbbbbb/seed0", "overrides": []}]
    sweep = tmp_path / "sweeps" / "s"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"runs": planned}))
    fzoo, mezo = sorted(cells(tmp_path), key=lambda cell: cell.method)
    assert mezo.counts == {"failed": 2, "finished": 1, "missing": 1, "queued": 1, "stopped": 1}
    assert (mezo.failed, mezo.waiting, mezo.missing, mezo.tries) == (2, 2, 1, 1)
    assert (fzoo.model, fzoo.task, fzoo.peft, fzoo.why) == ("opt-1.3b", "u", "lora", "no run has ended")
    assert fzoo.counts == {"missing": 1} and fzoo.mean is None
    # The sweep alone: what it lists, and nothing else.
    assert len(read_runs([sweep])) == 4


def test_seeds_that_draw_their_examples_are_one_setting_though_their_hashes_differ(tmp_path):
    for seed in (0, 1, 2):
        run(tmp_path, seed=seed, name=f"{seed}" * 8)
    (cell,) = cells(tmp_path)
    assert cell.n == 3 and cell.tries == 1


def test_an_argument_that_came_later_is_at_its_default_in_older_runs(tmp_path):
    run(tmp_path, "FZOO", 0)
    run(tmp_path, "FZOO", 1, optimizer__running=0.0)  # the constructor's default, written out
    run(tmp_path, "FZOO", 2, model__quantization=None)
    run(tmp_path, "FZOO", 3, optimizer__running=0.9)
    (cell,) = cells(tmp_path)
    assert sorted([run.seed for run in setting.runs] for setting in cell.settings) == [[0, 1, 2], [3]]
    assert {setting.label for setting in cell.settings} == {
        "lr 0.001, constant, running 0", "lr 0.001, constant, running 0.9"
    }  # fmt: skip


def test_a_method_of_ones_own_by_the_name_of_one_of_zo_is_told_apart(tmp_path):
    run(tmp_path, "MeZO", dev=0.6)
    run(tmp_path, "MeZO", dev=0.5, optimizer___target_="mypackage.MeZO")
    (cell,) = cells(tmp_path)
    assert [setting.label for setting in cell.settings] == [
        "lr 0.001, constant, mypackage.MeZO", "lr 0.001, constant, zo.optimizers.MeZO"
    ]  # fmt: skip


def test_of_two_runs_of_a_setting_and_seed_the_later_counts(tmp_path):
    run(tmp_path / "old", time=1.0, after=0.1)
    run(tmp_path / "new", time=2.0, after=0.2)
    run(tmp_path / "running", time=3.0, after=None, status="stopped")
    (cell,) = cells(tmp_path)
    assert cell.values == {0: 0.2} and cell.counts == {"finished": 1}
    assert "2 runs are left out" in comparison(read_runs([tmp_path])).notes[0]


def test_runs_of_several_commits_are_told(tmp_path):
    for seed, (commit, dirty) in enumerate([("a" * 40, False), ("a" * 40, False), ("b" * 40, True)]):
        folder = run(tmp_path, seed=seed)
        (folder / "provenance.json").write_text(json.dumps({"commit": commit, "dirty": dirty}))
    notes = comparison(read_runs([tmp_path])).notes
    assert "The runs come from 2 commits of zo: aaaaaaa (2), bbbbbbb+ (1)." in notes


def test_other_examples_and_other_precision_are_other_columns(tmp_path):
    for k in (16, 512):
        for dtype in ("float32", "bfloat16"):
            run(tmp_path, task__k=k, model__dtype=dtype, dev=0.5 + k / 2000)
    run(tmp_path, task__name="u")
    made = comparison(read_runs([tmp_path]))
    assert set(made.columns) == {
        (f"m (dtype {dtype})", "none", task)
        for dtype in ("float32", "bfloat16")
        for task in ("t (k 16)", "t (k 512)")
    } | {("m", "none", "u")}
    assert {cell.task for cell in made.cells} == {"t (k 16)", "t (k 512)", "u"}
    assert all(cell.tries == 1 for cell in made.cells)


def test_what_is_trained_on_is_no_hyper_parameter(tmp_path):
    for objective in ("options", "metric"):
        run(tmp_path, task__objective=objective)
    assert set(comparison(read_runs([tmp_path])).columns) == {
        ("m", "none", f"t (objective {objective})") for objective in ("options", "metric")
    }


def test_runs_that_try_whether_all_works_are_left_out_and_counted(tmp_path):
    run(tmp_path, task__test=1000, after=0.9)
    for seed in (0, 1):
        run(tmp_path, seed=seed, experiment="smoke", task__test=8, after=0.1)
    planned = [{"folder": "../../smoke/m-t-fzoo-none/aaaaaaaa/seed0", "overrides": []}]
    sweep = tmp_path / "sweeps" / "s-smoke"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"runs": planned}))
    runs = read_runs([tmp_path])
    made = comparison(runs)
    assert made.columns == (("m", "none", "t"),) and [cell.mean for cell in made.cells] == [0.9]
    assert len(made.runs) == 1 and made.summary == "1 of 1 runs ended"
    assert (
        made.notes[0] == "3 runs of debug=smoke or --smoke are left out; --where experiment=smoke shows them."
    )
    # Alone, and where one asks for them, they are runs like others.
    alone = comparison(read_runs([tmp_path / "smoke"]))
    assert [cell.n for cell in alone.cells] == [2]
    assert alone.notes == ("All runs are of debug=smoke or --smoke, a step or two on a few examples.",)
    assert {cell.task for cell in comparison(runs, smoke=True).cells} == {"t", "t (test 8)", "t (test 1000)"}


@pytest.mark.parametrize("debug", ["smoke", "step"])
def test_whatever_a_debug_run_is_of_its_experiment_says_what_it_is(debug):
    composed = compose(["experiment=fzoo/opt-125m", f"debug={debug}"])
    assert composed.config is not None and composed.config.experiment == SMOKE


def test_the_order_of_the_runs_does_not_matter(tmp_path):
    numbers = random.Random(0)
    for method in ("MeZO", "FZOO"):
        for lr in (1e-4, 1e-3):
            for seed in (0, 1, 2):
                value = numbers.random()
                run(
                    tmp_path,
                    method,
                    seed,
                    optimizer__lr=lr,
                    dev=value,
                    after=value,
                    rows=dev_rows(value, value / 2),
                )
    runs = read_runs([tmp_path])
    first = comparison(runs, title="", target=0.5).to_json()
    for _ in range(3):
        numbers.shuffle(runs)
        assert comparison(runs, title="", target=0.5).to_json() == first
    assert read_runs([tmp_path, tmp_path / "default"]) == read_runs([tmp_path])


def test_the_json_holds_every_cell_and_run(tmp_path):
    run(tmp_path, after=0.7)
    run(tmp_path, seed=1, after=None, status="failed")
    made = json.loads(comparison(read_runs([tmp_path])).to_json())
    (cell,) = made["cells"]
    assert (cell["mean"], cell["n"], cell["counts"]) == (0.7, 1, {"failed": 1, "finished": 1})
    assert {each["status"]: each["detail"] for each in made["runs"]}["failed"] == "ValueError: no"
    assert [each["folder"] for each in made["runs"]] == sorted(each["folder"] for each in made["runs"])
