"""The page in a real browser: what it shows, and what happens when one clicks, types, turns the light off or prints.

Debian's chromium without a window (apt-get install chromium); the tests skip where there is none.
"""

import json
import re
from dataclasses import replace

import pytest

from experiments.papers import Published
from experiments.report.comparison import comparison
from experiments.report.page import embedded, page, write_page
from experiments.report.runs import read_runs
from tests.report.browser import CHROMIUM, Browser
from tests.report.made import dev_rows, run, train_rows

PAPER = [
    Published("Paper", "1", "m", "t", "mezo", "none", None, 75.0, 1.0, "as printed"),
    Published("Paper", "1", "m", "t", "fzoo", "none", None, 60.0, None),
    Published("Paper", "1", "m", "t", "hizoo", "none", None, 60.0, None),
]


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    made = Browser()
    yield made
    made.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """mezo (two rates), fzoo, adamw and zoadam on t; mezo and fzoo on u. What fails, waits and is missing is zoadam."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, best in enumerate((0.7, 0.8)):
        losses = [*train_rows(0.7, 0.6, projected_gradient=(2.0, -1.0))]
        mezo, fzoo = [*losses, *dev_rows(0.5, 0.6, best)], [*losses, *dev_rows(0.5, 0.9, 0.9)]
        run(folder, "mezo", seed, after=best, dev=best, rows=mezo, n_test=200)
        run(folder, "fzoo", seed, after=best + 0.1, dev=0.9, rows=fzoo, n_test=200)
        run(folder, "mezo", seed, after=best, dev=best, rows=dev_rows(0.4, best), task__name="u")
    run(folder, "mezo", 0, after=0.99, dev=0.1, rows=dev_rows(0.1), optimizer__lr=0.5)
    run(folder, "fzoo", 0, after=0.3, dev=0.4, rows=dev_rows(0.4, 0.4), status="diverged", task__name="u")
    run(folder, "adamw", 0, after=0.85, dev=0.9, rows=dev_rows(0.8, 0.9))
    for seed in (0, 1, 2):
        run(folder, "zoadam", seed, after=None, status="failed")
    found = read_runs([folder])
    states = {("zoadam", 1): "running", ("zoadam", 2): "missing"}
    return [replace(each, status=states.get((each.method, each.seed), each.status)) for each in found]


@pytest.fixture(scope="module")
def file(runs, tmp_path_factory):
    """The page of all these runs."""
    made = comparison(runs, title="Four methods", target=0.75, published=PAPER)
    return write_page(made, tmp_path_factory.mktemp("page") / "index.html")


@pytest.fixture
def shown(browser, file):
    """The browser with that page as it is when it is opened."""
    show(browser, file)
    return browser


def show(browser, file):
    browser.size(1200, 900)
    browser.scheme("light")
    browser.open(file)


def show_made(browser, folder, made):
    show(browser, write_page(made, folder / "index.html"))


def visible(browser, section):
    """Texts of the cells of each visible row of a section's table."""
    return browser(
        f"[...document.querySelectorAll('#{section} tbody tr')].filter(r => r.checkVisibility())"
        ".map(r => [...r.cells].filter(c => c.checkVisibility()).map(c => c.innerText.trim()))"
    )


def methods(browser, section="methods"):
    return [row[0] for row in visible(browser, section)]


def clean(browser):
    """Nothing went wrong, and nothing was asked for but the page and its own (empty) icon."""
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in browser.requests) == 1
    return True


def test_it_renders_with_its_figures_and_without_network(shown):
    assert shown("document.title") == "Four methods · zo" and clean(shown)
    sizes = shown(
        "[...document.querySelectorAll('.curve, .band, .column, .strip svg > line, .forest circle')]"
        ".map(e => [e.getAttribute('class') ?? e.tagName, e.getBoundingClientRect()])"
        ".map(([name, r]) => [name, r.width + r.height])"
    )
    for name, count in (("curve", 3), ("band", 2), ("column", 3 + 3), ("circle", 4)):
        assert len([size for kind, size in sizes if kind == name and size > 3]) >= count, name
    # All methods that have a curve, each in its colour; no method has two.
    drawn = shown(
        "[...document.querySelectorAll('.curve')].map(e => [e.parentNode.dataset.method, getComputedStyle(e).stroke])"
    )
    assert sorted(name for name, _ in drawn) == ["adamw", "fzoo", "mezo"] and len({c for _, c in drawn}) == 3


def test_the_table_of_methods_and_tasks(shown):
    rows = {row[0]: row[1:] for row in visible(shown, "methods")}
    # mezo: of two rates the one that is better on dev, though the other is better on test.
    assert re.sub(r"\s+", " ", rows["mezo"][0]) == "75.0 ± 7.1 n = 2, 2 tries"
    assert rows["fzoo"][0].startswith("85.0 ± 7.1") and rows["fzoo"][1].endswith("1 diverged")
    assert "no result" in rows["zoadam"][0] and rows["adamw"][1] == "–"
    for word in ("1 failed", "1 missing", "1 to come"):
        assert word in rows["zoadam"][0]
    best = "[...document.querySelectorAll('#methods td.best')].map(c => [c.parentNode.dataset.method, c.dataset.task])"
    assert sorted(shown(best)) == [["adamw", "t"], ["fzoo", "t"], ["mezo", "u"]]  # 85.0 twice
    weights = "[...document.querySelectorAll('#methods td .value')].map(e => getComputedStyle(e).fontWeight)"
    assert sorted(set(shown(weights))) == ["400", "700"]


def test_every_status_is_shown(shown):
    said = {row[0].split("\n")[0] for row in visible(shown, "runs")}
    assert said == {"finished", "diverged", "failed", "running", "missing"}
    shown.choose("#status", "failed")
    assert [row[1] for row in visible(shown, "runs")] == ["zoadam"]
    counted = shown("document.querySelector('.card').innerText")
    assert "8 finished, 1 diverged, 1 failed, 1 running, 1 missing" in counted and "12" in counted


def test_sorting_by_clicks_and_by_keys(shown):
    head = "#methods thead th:nth-child(2)"
    shown.click(f"{head} button")
    assert methods(shown) == [
        "adamw",
        "fzoo",
        "mezo",
        "zoadam",
    ]  # equal ones stay as they were, none comes last
    assert shown(f"document.querySelector('{head}').ariaSort") == "descending"
    shown.click(f"{head} button")
    assert methods(shown) == ["mezo", "adamw", "fzoo", "zoadam"]
    shown("document.querySelector('#methods thead button').focus()")
    shown.key("Enter")
    assert methods(shown) == ["adamw", "fzoo", "mezo", "zoadam"]
    shown.key("Enter")
    assert methods(shown) == ["zoadam", "mezo", "fzoo", "adamw"]
    shown.click("#settings thead th:nth-child(7) button")
    dev = [row[6] for row in visible(shown, "settings")]
    assert dev == sorted(dev, key=lambda text: -1 if text == "–" else float(text), reverse=True) and clean(
        shown
    )


def test_filters(shown):
    shown.click("#find")
    shown.type("fzoo")
    assert methods(shown) == ["fzoo"] and {row[1] for row in visible(shown, "runs")} == {"fzoo"}
    shown("document.querySelector('#find').value = ''")
    shown.choose("#task", "u")
    assert {row[2] for row in visible(shown, "runs")} == {"u"}
    assert [len(row) for row in visible(shown, "methods")] == [2, 2, 2, 2]  # the column of t is gone
    shown.choose("#task", "")
    shown.click(".chip[data-method=mezo]")
    assert methods(shown) == ["adamw", "fzoo", "zoadam"]
    assert "mezo" not in shown(
        "[...document.querySelectorAll('#chart .series, .column')].map(e => e.dataset.method)"
    )
    assert all("mezo" not in row[0] for row in visible(shown, "differences"))
    assert shown("document.querySelector('.chip[data-method=mezo]').ariaPressed") == "false"
    shown.click("#all")
    assert "mezo" in methods(shown) and clean(shown)


def test_the_axes_of_the_curves(shown):
    path = "document.querySelector('.series[data-method=mezo] .curve').getAttribute('d')"
    words = "[...document.querySelectorAll('#chart text')].map(e => e.textContent)"
    first = shown(path)
    shown.click("[name=along][value=seconds]")
    assert "seconds" in shown(words) and clean(shown)
    shown.click("[name=along][value=x]")
    assert shown(path) == first
    shown.click("#logx")
    assert shown(path) != first
    shown.choose("#quantity", "train loss")
    assert "training loss" in shown(words)
    shown.choose("#quantity", "projected_gradient")
    shown.click("#logy")  # of negative numbers there is no logarithm: the scale stays as it is
    assert "NaN" not in shown(path) and "projected gradient" in shown(words)
    shown.choose("#column", "1")
    shown.choose("#quantity", "dev")
    assert sorted(
        set(shown("[...document.querySelectorAll('.curve')].map(e => e.parentNode.dataset.method)"))
    ) == ["fzoo", "mezo"]
    assert clean(shown)


def test_values_under_the_pointer_and_by_arrow_keys(shown):
    assert shown("document.querySelector('#tip').hidden")
    shown.move("#chart", 0.99, 0.5)  # beyond the last look: that one
    said = shown("document.querySelector('#tip').innerText")
    assert "30 forward passes" in said and re.search(r"fzoo\s+90\s+90 to 90", said)
    assert re.search(r"mezo\s+75\s+70 to 80", said) and "adamw" not in said  # which has ended by then
    shown("document.querySelector('#chart').focus()")
    shown.key("Escape")
    assert shown("document.querySelector('#tip').hidden")
    shown.key("ArrowRight")
    shown.key("ArrowRight")
    said = shown("document.querySelector('.readout').textContent")
    assert said == "20 forward passes: adamw 90, fzoo 90, mezo 60" and clean(shown)


def test_targets_that_were_reached_by_all_some_and_none(shown):
    words = "[...document.querySelectorAll('#reaches text')].map(e => e.textContent)"
    said = shown(words)
    assert said[said.index("fzoo") + 1] == "20" and said[said.index("mezo") + 1] == "30, never: 1 of 2"
    shown.choose("#column", "1")
    said = shown(words)
    assert said[said.index("fzoo") + 1] == "never, 1 of 1"


def test_differences_against_one_method(shown):
    # 10 points at both seeds; of 200 examples 1.972 √(0.75 × 0.25 / 200 + 0.85 × 0.15 / 200) = 7.83 points.
    rows = {row[0]: row[3:6] for row in visible(shown, "differences") if row[1] == "t"}
    assert rows["fzoo − mezo"] == ["2", "+10.0", "+2.2 to +17.8"] and rows["adamw − fzoo"][2] == "–"
    shown.choose("#against", "fzoo")
    rows = {row[0]: row[3:6] for row in visible(shown, "differences") if row[1] == "t"}
    assert set(rows) == {"adamw − fzoo", "mezo − fzoo"}
    assert [text.replace("−", "-") for text in rows["mezo − fzoo"]] == ["2", "-10.0", "-17.8 to -2.2"]


def test_beside_the_papers(shown):
    rows = {row[3]: row for row in visible(shown, "papers")}
    assert rows["mezo"][0] == "reproduced" and rows["mezo"][7:10] == ["75.0 ± 1.0", "75.0 ± 7.1", "2"]
    assert rows["fzoo"][0] == "not reproduced" and rows["hizoo"][0] == "not run" and rows["hizoo"][8] == "–"
    shown.choose("#verdict", "not run")
    assert [row[3] for row in visible(shown, "papers")] == ["hizoo"]


def test_dark_light_and_print(shown):
    ground = "getComputedStyle(document.body).backgroundColor"
    stroke = "getComputedStyle(document.querySelector('.series[data-method=mezo] .curve')).stroke"
    light, blue = shown(ground), shown(stroke)
    shown.scheme("dark")
    dark = shown(ground)
    assert light == "rgb(255, 255, 255)" and dark == "rgb(22, 24, 28)" and shown(stroke) != blue
    shown.click("#theme")
    assert shown(ground) == light and shown(stroke) == blue
    shown.click("#theme")
    assert shown(ground) == dark
    shown.scheme("dark", "print")
    assert (
        shown(ground) == light
        and shown("getComputedStyle(document.querySelector('.tools')).display") == "none"
    )


def test_every_width(shown):
    for width in (360, 700, 1600):
        shown.size(width, 800)
        shown.wait(f"document.querySelector('#chart svg').getBoundingClientRect().right <= {width}")
        assert shown("document.documentElement.scrollWidth") <= width  # tables scroll in themselves
    assert clean(shown)


def test_what_a_run_is_called_is_text_and_never_runs(browser, runs, tmp_path):
    evil = "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 2'>\" onload=\"ran=3"
    named = [
        replace(
            each,
            task=evil,
            model=f"{evil}<b>",
            detail=evil,
            method=evil if each.method == "fzoo" else each.method,
        )
        for each in runs
    ]
    show_made(browser, tmp_path, comparison(named, title=evil, target=0.75))
    assert browser("window.ran") is None and clean(browser)
    assert browser("document.querySelectorAll('img').length") == 0 and browser("document.scripts.length") == 3
    assert browser("document.querySelector('h1').textContent") == evil
    assert evil in methods(browser) and browser("data.columns[0].label").startswith(evil)
    browser.click("#methods thead th:nth-child(2) button")
    browser.move("#chart", 0.9, 0.5)
    assert evil in browser("document.querySelector('#tip').textContent") and browser("window.ran") is None


def test_a_script_that_is_not_ours_is_refused_by_the_browser(shown):
    shown(
        "(s => { s.textContent = 'window.ran = 1'; document.body.append(s); })(document.createElement('script'))"
    )
    assert (
        shown("window.ran") is None
        and len(shown.errors) == 1
        and "Content Security Policy" in shown.errors[0]
    )


def test_one_run_and_no_finished_run(browser, runs, tmp_path):
    one = next(each for each in runs if each.method == "adamw")
    show_made(browser, tmp_path, comparison([one]))
    assert methods(browser) == ["adamw"] and browser("document.querySelectorAll('.curve').length") == 1
    assert clean(browser)
    none = [each for each in runs if each.method == "zoadam"]
    show_made(browser, tmp_path, comparison(none, target=0.9))
    assert "no result" in visible(browser, "methods")[0][1] and len(visible(browser, "runs")) == 3
    assert "No run has a row of this yet." in browser("document.querySelector('#chart').innerText")
    assert clean(browser)


def test_a_run_without_dev_has_its_losses(browser, tmp_path):
    run(tmp_path / "runs", rows=train_rows(0.7, 0.6))
    show_made(browser, tmp_path, comparison(read_runs([tmp_path / "runs"])))
    assert browser("document.querySelector('#quantity').value") == "train loss"
    assert browser("document.querySelectorAll('.curve').length") == 1 and clean(browser)


def test_the_tables_are_there_without_a_script(runs):
    text = page(comparison(runs, title="Four methods"))
    for words in ('75.0<span class="off"> ± 7.1</span>', "no result", "1 diverged", "★ lr 0.001"):
        assert words in text
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)  # nothing is loaded from elsewhere
    assert "http" not in re.sub(r"http-equiv|http://www\.w3\.org/2000/svg", "", text)


def test_json_cannot_leave_its_element():
    value = {"<script>": "</script>&<!--\u2028"}
    text = embedded(value)
    assert json.loads(text) == value and not set("<>&\u2028") & set(text)
