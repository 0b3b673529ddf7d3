"""KMMLU's files: subjects and subsets by name, every fault of a CSV file by file and line."""

import csv
import io

import pytest

from lab import kmmlu_command, kmmlu_data
from lab.cli import LabError
from lab.kmmlu import HAERAE, KMMLU

HEADER = ["question", "answer", "A", "B", "C", "D", "Category", "Human Accuracy"]
GOOD = ["물음?", "2", "가", "나", "다", "라", "법", "0.61"]


@pytest.fixture
def table(tmp_path):
    """A function that writes a CSV file of rows, or bytes as they are, and returns its path."""

    def write(rows, name="Law-test.csv", encoding="utf-8"):
        path = tmp_path / "data" / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(rows, bytes):
            path.write_bytes(rows)
            return path
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        path.write_text(text.getvalue(), encoding=encoding, newline="")
        return path

    return write


def read(path, task=KMMLU):
    return kmmlu_data.read_items(path, task, "Law")


def test_the_45_subjects_of_the_harness():
    known = kmmlu_data.listing()
    sizes = {name: len(part) for name, part in known.groups.items()}
    assert sizes == {"STEM": 11, "HUMSS": 11, "Applied Science": 12, "Other": 11}
    assert len(set(known.subjects)) == 45
    assert known.file("Korean-History", "dev") == "data/korean-history-dev.csv"
    assert known.file("Math", "test") == "data/math-test.csv" and known.file("Law", "test") == "data/Law-test.csv"


@pytest.mark.parametrize(
    "names, subjects",
    [
        (["law"], ["Law"]),
        (["political science and SOCIOLOGY", "Law"], ["Law", "Political-Science-and-Sociology"]),
        (["Korean_History,math"], ["Math", "Korean-History"]),
        (["stem", "Biology"], kmmlu_data.listing().groups["STEM"]),
        (["applied-science"], kmmlu_data.listing().groups["Applied Science"]),
        (["ALL"], kmmlu_data.listing().subjects),
    ],
)
def test_subsets_whatever_their_case(names, subjects):
    chosen = kmmlu_data.choose(names)
    assert chosen.task is KMMLU and list(chosen.subjects) == list(subjects)


@pytest.mark.parametrize(
    "names, groups",
    [
        (["Law"], []),
        (["HUMSS", "Biology"], ["HUMSS"]),
        (["stem", "other"], ["STEM", "Other"]),
        (["all"], ["STEM", "HUMSS", "Applied Science", "Other"]),
    ],
)
def test_a_group_of_which_only_a_part_is_asked_has_no_score(names, groups):
    assert list(kmmlu_data.choose(names).groups) == groups


@pytest.mark.parametrize(
    "name, words",
    [
        ("Lawe", "did you mean Law"),
        ("Criminal", "did you mean Criminal-Law"),
        ("qqqq", "there are: all, STEM, HUMSS"),
        ("", "--subset: no subject named; there are: all, STEM, HUMSS"),
        (" , ", "no subject named"),
        ("General-Knowledge", "five options (chance 20 %): --subset haerae-general-knowledge"),
    ],
)
def test_an_unknown_subset_is_told_with_what_there_is(name, words):
    with pytest.raises(LabError) as error:
        kmmlu_data.choose([name])
    assert words in str(error.value) and "\n" not in str(error.value)


def test_haerae_stands_alone():
    assert kmmlu_data.choose(["haerae-general-knowledge"]).task is HAERAE
    with pytest.raises(LabError, match="ask it alone"):
        kmmlu_data.choose(["Law", "HAERAE_general_knowledge"])


def test_rows_as_they_stand(table):
    swapped = ["Human Accuracy", "Category", "D", "C", "B", "A", "answer", "question"]
    path = table(
        [swapped, ["", "법", "라", "다", "나", "가\n둘째 줄", "4", ' "물음",\n이어서?']], encoding="utf-8-sig"
    )
    (item,) = read(path)
    assert item.question == ' "물음",\n이어서?' and item.options == ("가\n둘째 줄", "나", "다", "라")
    assert (item.label, item.human, item.id, item.where) == (4, None, "Law/0", f"{path}:2")
    assert KMMLU.text(item) == '"물음",\n이어서?\nA. 가\n둘째 줄\nB. 나\nC. 다\nD. 라\n정답：'
    assert KMMLU.target(item) == "D"


def test_five_options_show_themselves(table):
    path = table([["query", "answer"], ["무엇?\n(A) 가 (B) 나 (C) 다 (D) 라 (E) 마\n정답:", "(E)"]])
    (item,) = read(path, HAERAE)
    assert (item.label, HAERAE.target(item), HAERAE.chance) == (5, "(E)", 0.2)
    assert HAERAE.text(item) == item.question


def changed(place, value):
    return [value if at == place else cell for at, cell in enumerate(GOOD)]


@pytest.mark.parametrize(
    "rows, line, words",
    [
        ([HEADER, GOOD, changed(1, "5")], 3, "answer '5'; labels are 1 to 4 (1 is A)"),
        ([HEADER, changed(1, "0")], 2, "0 would be a label from 0"),
        ([HEADER, changed(1, "B")], 2, "answer 'B'; labels are 1 to 4 (1 is A); write numbers"),
        ([HEADER, changed(1, "")], 2, "answer ''"),
        ([HEADER, changed(1, "2.0")], 2, "answer '2.0'"),
        ([HEADER, GOOD, changed(4, " ")], 3, "empty C"),
        ([HEADER, changed(0, "")], 2, "empty question"),
        ([HEADER, GOOD[:-1]], 2, "7 cells, the header has 8"),
        ([HEADER, GOOD, []], 3, "blank line"),
        ([HEADER, changed(7, "61 %")], 2, "Human Accuracy '61 %'"),
        ([HEADER, changed(7, "-1")], 2, "Human Accuracy '-1'"),
        ([HEADER[:3] + HEADER[4:], GOOD[:-1]], 1, "no column B"),
        ([[*HEADER, "A"], [*GOOD, "가"]], 1, "column A stands twice"),
        ([HEADER], 2, "no items"),
        ("물음".encode("cp949"), 1, "not UTF-8"),
        (b"", 1, "empty file"),
        (",".join(HEADER).encode() + b'\nq,1,a,b,c,"d,e\n', 2, "not valid CSV"),
    ],
)
def test_a_malformed_file_is_one_line(table, rows, line, words):
    path = table(rows)
    with pytest.raises(LabError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}:{line}: ") and words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "cells, shares",
    [
        (["0.61", "1", "", "nan", "0"], [0.61, 1.0, None, None, 0]),
        (["61", "1", "0.5", "", "0"], [0.61, 0.01, 0.005, None, 0]),
    ],
)
def test_what_people_got_right_as_shares_or_in_per_cent(table, cells, shares):
    assert [item.human for item in read(table([HEADER, *(changed(7, cell) for cell in cells)]))] == shares


def test_a_whole_kmmlu_of_another_size_is_told():
    whole, part = kmmlu_data.choose(["all"]), kmmlu_data.choose(["STEM"])
    assert kmmlu_command.unlike_published(whole, 35030) is None and kmmlu_command.unlike_published(part, 5) is None
    assert "has 35030 test items, here are 35029" in kmmlu_command.unlike_published(whole, 35029)


def test_every_bad_row_is_named_with_its_own_line(table):
    path = table([HEADER, changed(0, "둘\n줄"), changed(1, "7"), GOOD, changed(5, "")])
    with pytest.raises(LabError) as error:
        read(path)
    assert f"{path}:4: answer '7'" in str(error.value) and f"{path}:6: empty D" in str(error.value)


def test_a_missing_subject_is_named_with_what_there_is(table, tmp_path):
    table([HEADER, GOOD])
    subset = kmmlu_data.choose(["law", "math"])
    with pytest.raises(LabError, match=r"no data/math-test.csv; it holds Law; name others with --subset"):
        kmmlu_data.in_folder(tmp_path, subset, ["test"])
    with pytest.raises(LabError, match="no data/Law-dev.csv, .*--shots 0"):
        kmmlu_data.in_folder(tmp_path, kmmlu_data.choose(["law"]), ["test", "dev"])
    with pytest.raises(LabError, match="no such folder"):
        kmmlu_data.in_folder(tmp_path / "none", subset, ["test"])
    found = kmmlu_data.in_folder(tmp_path / "data", kmmlu_data.choose(["law"]), ["test"])
    assert list(found.paths) == [("Law", "test")] and not found.sample
