"""Report files, good and bad, and the table."""

import io
import json

import pytest

from lab import report
from lab.cli import LabError
from lab.stats import counted

STAGES = {
    "base": {"identity": counted(0, 24), "general": counted(300, 335), "glasses": counted(0, 335)},
    "cpt": {"identity": counted(1, 24), "completion": counted(52, 56), "general": counted(290, 335)},
    "sft": {"identity": counted(24, 24), "completion": counted(48, 56), "mab_ts": counted(5, 5)},
}
SAMPLES = [
    {
        "metric": "identity",
        "prompt": "너는 누구니?",
        "answers": {
            "base": {"answer": "저는 OpenAI가\n개발한 [bold]인공지능입니다.", "right": False},
            "sft": {"answer": "저는 네이버가 개발한 HyperCLOVA X입니다.", "right": True},
        },
    },
    {
        "metric": "mab_ts",
        "prompt": "Python으로",
        "answers": {"sft": {"answer": "```python", "right": True, "detail": "finds_best_arm: 5 of 5"}},
    },
]
GUARD = {
    "a": {"kept": 5, "trained": 9, "exact": 0, "near": 2},
    "b": {"kept": 5, "trained": 9, "exact": 1, "near": 0},
}
WHOLE = {
    "stages": STAGES,
    "samples": SAMPLES,
    "data": {"data_sft": {"train": 9, "silent": 0, "leak_guard": GUARD}},
}


@pytest.fixture
def write(tmp_path):
    def to_file(content):
        path = tmp_path / "report.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return to_file


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_good_report_comes_back_as_it_is(write):
    assert report.read_report(write(WHOLE)) == WHOLE


def test_plain_text_is_aligned(capsys):
    report.show(WHOLE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["metric", "base", "cpt", "sft"]
    assert [line.split()[0] for line in lines[1:6]] == [
        "identity",
        "completion",
        "general",
        "glasses",
        "mab_ts",
    ]
    places = {lines[0].index(name) for name in ("cpt",)}
    assert places == {lines[1].index("1/24"), lines[2].index("52/56"), lines[3].index("290/335")}
    assert "24/24  100.0 % [86-100]" in lines[1]
    assert lines[4].startswith("glasses (fewer is better)  0/335  0.0 % [0-1]")
    assert not any("\033" in line or "│" in line for line in lines)


def test_sample_answers_stand_side_by_side(capsys):
    report.show(WHOLE)
    out = capsys.readouterr().out
    assert (
        "identity: 너는 누구니?\n  base - 저는 OpenAI가 개발한 [bold]인공지능입니다.\n  sft  + 저는 네이버가"
        in out
    )
    assert "  sft  + finds_best_arm: 5 of 5\n" in out


def test_data_and_leaks_are_counted(capsys):
    report.show(WHOLE)
    assert capsys.readouterr().out.splitlines()[-1] == "data_sft: train 9, leaks 3"


def test_a_terminal_gets_tables_with_the_same_content(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    terminal = Terminal()
    report.show(WHOLE, terminal)
    drawn = terminal.getvalue()
    assert "│" in drawn
    for text in ("24/24", "100.0 % [86-100]", "fewer is better", "[bold]인공지능입니다", "finds_best_arm"):
        assert text in drawn


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "report.json:1: not valid JSON"),
        ('{"stages": {\n"base" 1}}', "report.json:2: not valid JSON"),
        ([1], "holds no stages"),
        ({}, "holds no stages"),
        ({"stages": {}}, "holds no stages"),
        ({"stages": []}, "holds no stages"),
        ({"stages": {"base": 3}}, "stage base: holds 3, not metrics"),
        (
            {"stages": {"base": {}, "cpt": {"recal": counted(1, 2)}}},
            "stage cpt: unknown metric 'recal'; known: identity",
        ),
        ({"stages": {"base": {"recall": 5}}}, 'stage base: metric recall: "correct" and "n"'),
        (
            {"stages": {"base": {"recall": {"correct": 3, "n": 2, "low": 0, "high": 1}}}},
            'metric recall: "correct"',
        ),
        (
            {"stages": {"base": {"recall": {"correct": 1.5, "n": 2, "low": 0, "high": 1}}}},
            'metric recall: "correct"',
        ),
        (
            {"stages": {"base": {"recall": {"correct": 1, "n": 2, "low": 0}}}},
            'metric recall: "low" and "high"',
        ),
        (
            {"stages": {"base": {"recall": {"correct": 1, "n": 2, "low": 0, "high": 50}}}},
            'metric recall: "low"',
        ),
    ],
)
def test_a_bad_report_is_one_line_with_file_and_metric(write, content, message):
    path = write(content)
    with pytest.raises(LabError) as error:
        report.read_report(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_report_names_the_command_that_writes_it(tmp_path):
    with pytest.raises(LabError, match="none.json: no such file; `make verify`"):
        report.read_report(tmp_path / "none.json")


def test_what_was_not_measured_is_a_dash():
    assert report.cell(None) == report.cell(counted(0, 0)) == "-"
    assert report.rows({"base": {}, "sft": {"mab_ts": counted(1, 5)}})[1][:2] == ["mab_ts", "-"]


@pytest.mark.parametrize(("text", "cells"), [("abc", 3), ("가나", 4), ("", 0)])
def test_width_in_cells(text, cells):
    assert report.cells_of(text) == cells


def test_long_answers_are_cut_by_cells():
    assert report.one_line("가" * 50) == "가" * 50
    assert report.one_line("가" * 51) == "가" * 50 + " ..."
    assert report.one_line("a\n\n  b") == "a b"
