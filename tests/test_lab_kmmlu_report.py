"""Counts, intervals and words of a KMMLU report, from rows made up to known figures."""

import io

import pytest

from lab import kmmlu_report
from lab.kmmlu import KMMLU
from lab.kmmlu_data import Subset

SUBSET = Subset(KMMLU, ("Law", "Math"), {"HUMSS": ["Law"], "STEM": ["Math"]})


def rows(picks):
    """Rows of {subject: [(label, picked)]}."""
    return [
        {"id": f"{subject}/{place}", "subject": subject, "label": label, "picked": said, "right": label == said}
        for subject, pairs in picks.items()
        for place, (label, said) in enumerate(pairs)
    ]


GOOD = rows({"Law": [("A", "A")] * 6 + [("B", "C")] * 2, "Math": [("D", "D"), ("C", "B")]})
ALWAYS_D = rows({"Law": [("A", "D")] * 6 + [("B", "D")] * 2, "Math": [("D", "D"), ("C", "D")]})


def test_micro_weighs_items_and_macro_weighs_subjects():
    found = kmmlu_report.of_stage(GOOD, SUBSET)
    assert (found["micro"]["correct"], found["micro"]["n"]) == (7, 10)
    assert found["macro"]["share"] == (6 / 8 + 1 / 2) / 2 and found["macro"]["subjects"] == 2
    assert found["macro"]["low"] < 0.5 < found["macro"]["share"] < found["macro"]["high"]
    assert {name: count["correct"] for name, count in found["groups"].items()} == {"HUMSS": 6, "STEM": 1}
    assert found["letters"] == {"A": 6, "B": 1, "C": 2, "D": 1}
    assert found["answers"] == {"A": 6, "B": 2, "C": 1, "D": 1} and found["warning"] is None


def test_the_mean_of_one_subject_has_that_subjects_interval():
    only = kmmlu_report.macro([{"correct": 15, "n": 50, "low": 0.19, "high": 0.44}])
    assert (only["low"], only["share"], only["high"]) == (0.19, 0.3, 0.44)
    four = kmmlu_report.macro([{"correct": 15, "n": 50, "low": 0.19, "high": 0.44}] * 4)
    assert (four["low"], four["high"]) == (0.245, 0.37)  # four as wide apart: half the distance


def test_a_model_that_always_says_d_is_called_out():
    assert kmmlu_report.of_stage(ALWAYS_D, SUBSET)["warning"] == "answers D in 100 % of items"
    assert kmmlu_report.warning({"A": 10, "D": 90}) == "answers D in 90 % of items"
    assert kmmlu_report.warning({"A": 11, "D": 89}) is None


def test_items_are_paired_by_id_whatever_their_order():
    report = kmmlu_report.content({"base": GOOD, "cpt": ALWAYS_D[::-1]}, SUBSET, 0.62)
    (pair,) = report["paired"]
    assert (pair["first"], pair["second"], pair["n"]) == ("base", "cpt", 10)
    assert (pair["only_first"], pair["only_second"], pair["difference"]) == (6, 0, -0.6)
    assert report["human"] == 0.62 and report["chance"] == 0.25


@pytest.mark.parametrize(
    "low, high, difference, p, words",
    [
        (
            -0.03,
            0.006,
            -0.012,
            0.3,
            "-1.2 points [-3.0, +0.6], p = 0.30: no difference shown; a loss of more than 3.0",
        ),
        (-0.05, -0.01, -0.03, 0.0004, "p below 0.001: worse, by 1.0 points or more"),
        (0.02, 0.06, 0.04, 0.012, "p = 0.012: better, by 2.0 points or more"),
    ],
)
def test_a_difference_in_words(low, high, difference, p, words):
    pair = {"first": "base", "second": "cpt", "difference": difference, "low": low, "high": high, "p": p}
    assert words in kmmlu_report.verdict(pair) and kmmlu_report.verdict(pair).startswith("cpt - base: ")


def test_what_is_printed():
    report = kmmlu_report.content({"base": GOOD, "cpt": ALWAYS_D}, SUBSET, 0.62)
    file = io.StringIO()
    kmmlu_report.show({"source": "s", "sample": True, **report}, file)
    printed = file.getvalue()
    for words in (
        "s: a sample made by this lab, NOT KMMLU",
        "6/8  75.0 % [41-93]",
        "25 %",
        "all items (micro)",
        "2 subjects  62.5 %",
        "warning: cpt answers D in 100 % of items",
        "people who took these exams: 62.0 %",
        "cpt - base: -60.0 points",
    ):
        assert words in printed
