"""The forgetting experiment's arithmetic: which points are told apart, and what the verdict says of them."""

import json

import pytest

from lab import forgetting
from lab.cli import LabError, hashes
from lab.stats import counted

N = 200


def rows(general, recall, glasses=0):
    """The answers of a point that gets the first `general` and `recall` of N questions right, and speaks of the company."""
    answers = [
        {"metric": "general", "right": place < general, "speaks_of_company": place >= N - glasses}
        for place in range(N)
    ]
    for metric in ("recall", "recall_paraphrase"):
        answers += [{"metric": metric, "right": place < recall} for place in range(N)]
    return answers


def experiment(**answers):
    """(points, comparisons) of {"replay_25": answer rows}."""
    points = []
    for name in answers:
        kind, _, percent = name.partition("_")
        replay = {"self": "self"}.get(kind, "authored" if percent != "0" else "none")
        metrics = {"general": counted(sum(forgetting.outcomes(answers[name], "general")), N)}
        general = int(percent)
        points.append(
            {
                "name": name,
                "replay": replay,
                "ratio": general / 100,
                "rows": {"company": 100 - general, "general": general},
                "metrics": metrics,
            }
        )
    return points, forgetting.comparisons(points, answers)


def test_the_smallest_share_as_good_as_the_best_is_favoured():
    points, compared = experiment(
        replay_0=rows(10, 190, 100), replay_25=rows(180, 190), replay_50=rows(182, 190), self_50=rows(185, 190)
    )
    assert forgetting.worse("replay_0", compared) == ["general", "glasses"]
    assert forgetting.worse("replay_25", compared) == []
    assert forgetting.favoured(points, compared)["name"] == "replay_25"
    said = forgetting.verdict(points, compared, "replay_50")
    assert (
        said.startswith("The smallest share that is told apart from the best in no metric")
        and said.count("25%") == 1
    )
    assert "the default is 50% general rows (replay_50, 182/200" in said
    assert "replay_0 loses general and glasses" in said
    assert ", the default; replay_0 loses" in forgetting.verdict(points, compared, "replay_25")


def test_recall_lost_counts_as_much_as_what_was_forgotten():
    points, compared = experiment(replay_0=rows(10, 190), replay_75=rows(190, 100))
    assert forgetting.favoured(points, compared) is None
    said = forgetting.verdict(points, compared, "replay_75")
    assert said.startswith("No share is as good as the best in every metric")
    assert "replay_75 loses recall and recall_paraphrase" in said


def test_self_generated_rows_are_compared_but_are_no_share():
    points, compared = experiment(replay_50=rows(180, 190), self_50=rows(120, 190))
    assert forgetting.worse("self_50", compared) == ["general"]
    points, compared = experiment(replay_50=rows(120, 190), self_50=rows(180, 190))
    assert forgetting.favoured(points, compared) is None


def test_what_was_not_measured_decides_nothing():
    answers = {"replay_50": [row for row in rows(100, 0) if row["metric"] == "general"]}
    for row in answers["replay_50"]:
        del row["speaks_of_company"]
    points, compared = experiment(**answers)
    assert list(compared) == ["general"]
    assert forgetting.favoured(points, compared)["name"] == "replay_50"


def test_the_table_has_the_points_from_few_to_many_rows():
    points, compared = experiment(replay_50=rows(180, 1), replay_0=rows(10, 1), self_50=rows(1, 1))
    lines = forgetting.table({"points": points, "base": {"general": counted(190, N)}})
    assert lines[0] == ["metric", "base", "replay_0", "replay_50", "self_50"]
    assert lines[1] == ["general rows", "-", "0 of 100", "50 of 100", "50 of 100"]
    assert [cell.split()[0] for cell in lines[2]] == ["general", "190/200", "10/200", "180/200", "1/200"]


@pytest.fixture
def adapter(tmp_path):
    """A function that writes an adapter's and its data's summaries; returns the adapter's folder."""

    def write(data):
        (tmp_path / "data").mkdir()
        (tmp_path / "data/summary.json").write_text(json.dumps(data), encoding="utf-8")
        (tmp_path / "data/train.jsonl").write_text("the rows\n", encoding="utf-8")
        inputs = hashes([tmp_path / "data/train.jsonl"])
        summary = {"flags": {"data": str(tmp_path / "data")}, "inputs": inputs}
        (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("data", "replay", "ratio"),
    [
        ({"train": 200, "replay": 50}, "authored", 0.25),
        ({"train": 200, "replay": 50, "replay_source": "self"}, "self", 0.25),
        ({"train": 200, "replay": 0, "replay_source": "none"}, "none", 0.0),
    ],
)
def test_a_points_share_is_counted_in_its_data(adapter, data, replay, ratio):
    found = forgetting.point("replay-25", adapter(data), {})
    assert (found["replay"], found["ratio"]) == (replay, ratio)
    assert found["rows"] == {"company": 200 - data["replay"], "general": data["replay"]}


@pytest.mark.parametrize("change", [lambda file: file.write_text("other rows\n"), lambda file: file.unlink()])
def test_data_that_was_made_anew_since_is_refused(adapter, change):
    folder = adapter({"train": 200, "replay": 50})
    change(folder / "data/train.jsonl")
    with pytest.raises(LabError, match="data/train.jsonl: not the rows that .* was trained on; train it again"):
        forgetting.point("replay-25", folder, {})


def test_points_of_the_same_rows_are_told():
    points, compared = experiment(replay_50=rows(180, 190), self_50=rows(170, 190), replay_0=rows(10, 190))
    for item, data in zip(points, ("a", "a", "b"), strict=True):
        item["data_sha256"] = data
    told = (
        "replay_50 and self_50 were trained on the same rows, byte for byte: what sets them apart is not the rows."
    )
    assert forgetting.verdict(points, compared, "replay_50").endswith(f" {told}")
    points[1]["data_sha256"] = "c"
    assert "same rows" not in forgetting.verdict(points, compared, "replay_50")


def test_data_without_counts_is_one_line(adapter):
    with pytest.raises(LabError, match="data/summary.json: no counts of general rows, so .* is no point; name"):
        forgetting.point("x", adapter({"rows": 3}), {})


def test_what_is_no_report_is_one_line(tmp_path):
    path = tmp_path / "forgetting.json"
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(
        LabError, match="not a report of the forgetting experiment; remove it, then `make forgetting`"
    ):
        forgetting.read(path)
