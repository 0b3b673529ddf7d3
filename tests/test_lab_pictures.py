"""Pictures: what is drawn is what was measured, in the page's colours and font, with ids of its own."""

import re
import warnings
from xml.etree import ElementTree

import pytest

from lab import bars, measured, pictures, svg
from lab.stats import counted
from tests import made_runs

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def curve(tmp_path):
    """A function that draws a made-up training run and returns (picture, summary, rows)."""

    def draw(**more):
        made_runs.curve(tmp_path, **more)
        summary, rows = measured.read_curve(tmp_path)
        return pictures.curve("c", "cpt", summary, rows), summary, rows

    return draw


def words(picture):
    """Every text that the picture shows."""
    return [element.text for element in ElementTree.fromstring(picture.svg).iter(f"{SVG}text")]


def test_text_is_text_and_colours_and_font_are_the_pages(curve):
    picture, _, _ = curve(recall=True, guard=0.2)
    assert {
        "loss, nats/token",
        "recall, %",
        "updates",
        "training",
        "validation",
        "kept: 40",
        "stopped: 50",
    } <= set(words(picture))
    assert {"general text", "limit for general text"} <= set(words(picture))
    assert "var(--series-1)" in picture.svg and "var(--ink)" in picture.svg
    assert not re.search(r"#[0-9a-fA-F]{6}|font-family|<style|<metadata|\dpt\b", picture.svg)


def test_the_same_figures_give_the_same_bytes(curve):
    assert curve(recall=True)[0] == curve(recall=True)[0]


def test_what_was_not_followed_is_not_drawn(curve):
    picture, _, _ = curve()
    assert not {"recall, %", "general text", "limit for general text"} & set(words(picture))


def test_the_guards_limit_is_the_first_loss_and_what_it_may_rise(curve):
    _, summary, rows = curve(guard=0.2)
    assert pictures.guard_limit(summary, rows) == pytest.approx(2.2)
    assert pictures.guard_limit({"flags": {}}, rows) is None
    assert pictures.guard_limit(summary, [{"iteration": 0}]) is None


def test_a_curve_in_words(curve):
    _, summary, rows = curve(recall=True)
    said = "training loss from 4.17 to 0.83 nats/token, validation loss from 5.00 to 1.67 nats/token, recall from 0 % to 100 %"
    assert (
        pictures.describe_curve(summary, rows)
        == f"{said}. Kept: update 40 of 50, where the run was stopped early."
    )


def test_a_run_that_diverged_is_drawn_as_far_as_it_goes():
    rows = [{"iteration": 0, "valid_loss": 3.0}, {"iteration": 1, "valid_loss": float("nan")}]
    assert "validation" in words(pictures.curve("c", "t", {"flags": {}}, rows))
    assert "no points" in pictures.describe_curve({"flags": {}}, [])
    pictures.curve("c", "t", {"flags": {}}, [])


def test_bars_are_as_long_as_the_shares():
    """The width of each bar on the axis is its share: read back from the paths that are drawn."""
    rows = [("all", {"base": counted(20, 100), "sft": counted(60, 100)}), ("Law", {"base": counted(40, 100)})]
    picture = bars.bars("b", "t", rows, {"chance": 0.25}, 100)
    boxes = re.findall(
        r'<path d="M ([\d.]+) [\d.]+ L ([\d.]+) [\d.]+ [^"]*" clip-path[^>]*fill: var\(--series-(\d)\)',
        " ".join(picture.svg.split()),
    )
    widths = {(int(series), round(float(end) - float(start), 3)) for start, end, series in boxes}
    unit = min(width for _, width in widths) / 20
    assert {(series, round(width / unit)) for series, width in widths} == {(0, 20), (1, 60), (0, 40)}
    assert picture.description == "all: base 20.0 %, sft 60.0 %. Law: base 40.0 %. chance 25 %."


def test_an_axis_reaches_as_far_as_the_longest_interval():
    rows = [("all", {"base": counted(20, 100)})]
    assert bars.reach_of(rows, {"chance": 0.25}) == pytest.approx(100 * counted(20, 100)["high"] + 5)
    assert bars.reach_of(rows, {"people": 0.626}) == pytest.approx(67.6)
    assert bars.reach_of([("all", {"base": counted(99, 100)})], {}) == 100


def test_letters_are_shares_of_the_items():
    found = {"base": {"letters": {"A": 3, "D": 1}, "answers": {"A": 1, "B": 1, "C": 1, "D": 1}}, "sft": {}}
    picture = bars.letters("l", "t", found)
    assert picture.description == "base: A 75 %, D 25 %; true answers: A 25 %, B 25 %, C 25 %, D 25 %."
    assert {"A", "B", "C", "D", "base", "true answers"} <= set(words(picture))


def test_self_generated_replay_has_marks_of_its_own():
    content = made_runs.forgetting()
    whole = words(pictures.forgetting("f", "t", content))
    assert {"recall", "general", "glasses", "default", "general, base", "self-generated (hollow)"} <= set(whole)
    assert "self-50 (self): recall 97 %, general 88 %, glasses 2 %" in pictures.describe_forgetting(content)


def test_hangul_needs_no_font_of_ours_and_warns_of_none():
    rows = [("한국사 <b> $x$", {"모델": counted(1, 4), "_hidden": counted(2, 4)})]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = words(bars.bars("b", "한글", rows, {}, 100))
    assert "한국사 <b> $x$" in shown and "모델" in shown and "\u200b_hidden" in shown


def test_two_pictures_in_a_page_share_no_id(curve):
    rows = [("all", {"base": counted(1, 4)})]
    drawn = [curve(recall=True)[0].svg, *(bars.bars(name, "t", rows, {"chance": 0.25}, 100).svg for name in "ab")]
    ids = [re.findall(r' id="([^"]+)"', text) for text in drawn]
    assert len({name for found in ids for name in found}) == sum(map(len, ids))
    for text, own in zip(drawn, ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(own)


def test_every_series_has_a_colour_and_they_come_round():
    assert len({svg.series(number) for number in range(svg.SERIES)}) == svg.SERIES
    assert svg.series(svg.SERIES) == svg.series(0)


def test_nothing_is_left_behind_in_matplotlibs_settings():
    import matplotlib

    before = dict(matplotlib.rcParams)
    bars.bars("b", "t", [("all", {"base": counted(1, 4)})], {}, 100)
    assert dict(matplotlib.rcParams) == before
