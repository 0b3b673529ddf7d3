"""Paired differences in reports: from answers to the table."""

import pytest

from lab import differences, verification
from lab.stats import paired
from tests import made_runs


def test_answers_are_compared_on_the_probes_of_both():
    """By hand: of five questions that both were asked, the second wins two and loses one."""
    first = [{"metric": "recall", "id": name, "right": name in "ab"} for name in "abcdex"]
    second = [{"metric": "recall", "id": name, "right": name in "acd"} for name in "yedcba"]
    found = verification.differences({"one": first, "two": second})
    assert list(found) == ["recall"]
    pair = found["recall"][0]
    assert [pair[key] for key in ("first", "second", "n", "only_first", "only_second")] == ["one", "two", 5, 1, 2]
    assert pair["difference"] == 0.2


def test_every_pair_of_stages_in_their_order_and_general_by_its_parts():
    said = {name: made_runs.answers(place) for place, name in enumerate(made_runs.STAGES)}
    found = verification.differences(said, replayed={str(number) for number in range(150)})
    assert differences.names(found) == [("base", "cpt"), ("base", "sft"), ("cpt", "sft")]
    assert {"general", "general_mixed", "general_unmixed", "glasses"} <= set(found)
    sizes = {metric: pairs[0]["n"] for metric, pairs in found.items()}
    assert (sizes["general_mixed"], sizes["general_unmixed"], sizes["glasses"]) == (150, 50, 200)
    assert (
        differences.find(found["glasses"], "base", "cpt")["difference"] == 0.1
    )  # worse: more speak of the company


def test_a_pair_can_be_read_from_either_side():
    pairs = [{"first": "a", "second": "b", **paired([True] * 8 + [False] * 2, [False] * 9 + [True])}]
    turned = differences.find(pairs, "b", "a")
    direct = {"first": "b", "second": "a", **paired([False] * 9 + [True], [True] * 8 + [False] * 2)}
    assert turned == pytest.approx(direct)
    assert differences.find(pairs, "a", "c") is None


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ([True] * 50 + [False] * 50, [True] * 50 + [False] * 50, "+0.0 ["),
        ([True] * 50 + [False] * 50, [False] * 100, "-50.0 ["),
        ([False] * 100, [True] * 50 + [False] * 50, "+50.0 ["),
    ],
)
def test_a_star_marks_an_interval_without_zero(first, second, text):
    shown = differences.cell(paired(first, second))
    assert shown.startswith(text) and "-0 " not in shown and "-0]" not in shown
    assert shown.endswith(" *") == (text != "+0.0 [")


def test_many_probes_are_told_to_a_tenth_of_a_point():
    assert differences.cell(paired([True] * 2000, [True] * 1990 + [False] * 10)) == "-0.5 [-0.9 to -0.2] *"
    nearly = paired([True] * 1999 + [False], [True] * 2000) | {"difference": -0.0004}
    assert differences.points(nearly).startswith("+0.0 ") and "-0 " not in differences.points(nearly)
    assert differences.cell(None) == differences.cell(paired([], [])) == "-"


def test_a_report_prints_them_below_the_table(capsys):
    from lab import report

    report.show(made_runs.report())
    out = capsys.readouterr().out
    head = next(line for line in out.splitlines() if line.startswith("difference "))
    assert head.split("  ")[-1].strip() == "cpt -> sft" and "base -> cpt" in head
    line = next(line for line in out.splitlines() if line.startswith("general ") and "[-30" in line)
    assert "-24.0 [-30 to -18] *" in line and "+20.0 [" in line
    assert out.index("glasses (fewer is better)  0/200") < out.index("differences in points")
