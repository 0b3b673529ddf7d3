"""Bounds on a report: what holds, what does not, and files that are no bounds."""

import json

import pytest
import yaml

import compare_hcx_stages
from lab import bounds
from lab.cli import LabError
from lab.stats import counted

STAGES = {
    "base": {"general": counted(300, 335), "identity": counted(0, 24)},
    "sft": {"general": counted(270, 335), "identity": counted(24, 24), "glasses": counted(7, 335)},
}


@pytest.fixture
def files(tmp_path):
    """A function that writes a report and a bounds file and returns the flags that name them."""

    def write(limits, stages=STAGES):
        text = limits if isinstance(limits, str) else yaml.safe_dump(limits)
        (tmp_path / "bounds.yaml").write_text(text, encoding="utf-8")
        (tmp_path / "report.json").write_text(json.dumps({"stages": stages}), encoding="utf-8")
        return "--report", tmp_path / "report.json", "--check", tmp_path / "bounds.yaml"

    return write


@pytest.mark.parametrize(
    ("stage", "metric", "limit", "line"),
    [
        ("base", "general", {"at_least": 0.8}, "holds: base general 89.6 %, at least 80.0 %"),
        ("base", "general", {"at_least": 0.9}, "does not hold: base general 89.6 %, at least 90.0 %"),
        ("base", "identity", {"at_most": 0.0}, "holds: base identity 0.0 %, at most 0.0 %"),
        ("base", "identity", {"at_most": 0}, "holds: base identity 0.0 %, at most 0.0 %"),
        ("sft", "identity", {"at_least": 1}, "holds: sft identity 100.0 %, at least 100.0 %"),
        ("sft", "glasses", {"at_most": 0.02}, "does not hold: sft glasses 2.1 %, at most 2.0 %"),
        # 270 is nine tenths of 300 exactly: floating point numbers would come out one side or the other
        (
            "sft",
            "general",
            {"of_base": 0.9},
            "holds: sft general 80.6 %, at least 80.6 % (0.9 of the base's 89.6 %)",
        ),
        ("sft", "general", {"of_base": 0.91}, "does not hold: sft general 80.6 %, at least 81.5 %"),
        ("sft", "mab_ts", {"at_least": 0.0}, "does not hold: sft mab_ts was not measured"),
        ("sft", "mab_ts", {"of_base": 0.5}, "does not hold: sft mab_ts was not measured"),
    ],
)
def test_each_bound_is_told_with_its_figure(run, files, stage, metric, limit, line):
    code, out, error = run(compare_hcx_stages.main, *files({stage: {metric: limit}}))
    assert line in out
    assert code == (0 if line.startswith("holds") else 3), error
    if code:
        assert "1 of 1 bounds do not hold" in error and error.count("\n") == 1


def test_one_that_does_not_hold_hides_no_other(run, files):
    limits = {"base": {"general": {"at_least": 0.99}}, "sft": {"identity": {"at_least": 0.9, "at_most": 1.0}}}
    code, out, error = run(compare_hcx_stages.main, *files(limits))
    assert (code, out.count("\nholds: "), out.count("\ndoes not hold: ")) == (3, 2, 1)
    assert "1 of 3 bounds do not hold" in error


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("a: [", ":1: not valid YAML"),
        ("", "expected `stage: ...` lines"),
        ("- base", "expected `stage: ...` lines"),
        ({"cpt": {"general": {"at_least": 0.5}}}, "unknown stage 'cpt'; known: base, sft"),
        ({"sft": {"recal": {"at_least": 0.5}}}, "sft: unknown metric 'recal'; known: identity, "),
        ({"sft": {"recall": {"above": 0.5}}}, "sft: recall: unknown bound 'above'; known: at_least, "),
        ({"sft": {"recall": 0.5}}, "sft: recall: expected `bound: ...` lines, found 0.5"),
        ({"sft": {"recall": {"at_least": "half"}}}, "sft: recall: at_least: 'half' is no share"),
        ({"sft": {"recall": {"at_least": 80}}}, "sft: recall: at_least: 80 is no share"),
        ({"sft": {"recall": {"at_least": True}}}, "sft: recall: at_least: True is no share"),
    ],
)
def test_what_is_no_bound_is_one_line_with_the_file(run, files, limits, message):
    flags = files(limits)
    code, _, error = run(compare_hcx_stages.main, *flags)
    assert (code, error.count("\n")) == (1, 1)
    assert str(flags[-1]) in error and message in error


@pytest.mark.parametrize("limits", ["a: [", {"sft": {"recal": {"at_least": 0.5}}}])
def test_a_fault_is_told_before_the_table(run, files, limits):
    code, out, error = run(compare_hcx_stages.main, *files(limits))
    assert (code, out) == (1, "") and "bounds.yaml" in error


def test_a_share_of_the_base_needs_the_base(run, files):
    stages = {"sft": STAGES["sft"]}
    code, _, error = run(compare_hcx_stages.main, *files({"sft": {"general": {"of_base": 0.9}}}, stages))
    assert code == 1
    assert "sft: general: of_base needs stage base" in error


def test_a_missing_bounds_file_is_told_before_anything_is_loaded(run, model_8bit):
    flags = ("--model", model_8bit, "--limit", "1", "--check", "none.yaml")
    code, out, error = run(compare_hcx_stages.main, *flags)
    assert code == 1
    assert "none.yaml: cannot read" in error
    assert "loaded" not in out


def test_the_bounds_of_the_embedded_model_are_those_of_the_issue():
    found = bounds.read_bounds("configs/tiny/bounds.yaml", ["base", "cpt", "sft"])
    assert len(found) == 10
    assert {bound.metric: float(bound.value) for bound in found if bound.kind == "of_base"} == {"general": 0.9}
    with pytest.raises(LabError, match="unknown stage 'cpt'"):
        bounds.read_bounds("configs/tiny/bounds.yaml", ["base", "sft"])
