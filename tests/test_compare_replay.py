"""compare_replay.py on the embedded model, with two adapters of two updates and the data that they were trained on."""

import json

import pytest

import compare_replay as command
import train_with_early_stopping
from lab import measured


@pytest.fixture(scope="module")
def points(model_8bit, tmp_path_factory):
    """The folder with adapters none/ and half/: without general rows, and with as many as the company's."""
    folder = tmp_path_factory.mktemp("points")
    rows = "".join(json.dumps({"text": f"바른식품의 {n}번 창고"}) + "\n" for n in range(8))
    for name, replay in (("none", 0), ("half", 4)):
        data = folder / f"data_{name}"
        data.mkdir()
        for part in ("train", "valid"):
            (data / f"{part}.jsonl").write_text(rows, encoding="utf-8")
        replayed = ["capital/0", "capital/1"] if replay else []
        counts = {"train": 8, "replay": replay, "replayed_facts": replayed}
        (data / "summary.json").write_text(json.dumps(counts), encoding="utf-8")
        flags = ("--model", model_8bit, "--train", "--data", data, "--adapter-path", folder / name)
        fast = ("--iters", "2", "--batch-size", "4", "--learning-rate", "1e-3")
        assert train_with_early_stopping.main([str(item) for item in (*flags, *fast)]) == 0
    return folder


def test_every_point_is_measured_and_the_report_is_read_again(run, model_8bit, points, tmp_path):
    output = tmp_path / "forgetting.json"
    named = ("base", f"replay-0={points / 'none'}", f"replay-50={points / 'half'}")
    flags = ("--model", model_8bit, "--limit", "3", "--default", "replay-50", "--output", output)
    code, out, error = run(command.main, *flags, "--adapter-path", *named)
    assert code == 0, error
    report = measured.read_forgetting(output)  # as the page and the claims read it
    assert [(item["name"], item["replay"], item["ratio"]) for item in report["points"]] == [
        ("replay-0", "none", 0.0),
        ("replay-50", "authored", 0.5),
    ]
    assert report["points"][1]["rows"] == {"company": 4, "general": 4}
    for metrics in (report["base"], *(item["metrics"] for item in report["points"])):
        assert {"recall", "recall_paraphrase", "completion", "identity", "general", "glasses", "mab_ts"} <= set(
            metrics
        )
        assert metrics["recall"]["n"] == 3
    assert report["default"] == "replay-50" and report["verdict"] in out
    assert report["paired"]["general"][0].keys() >= {"first", "second", "difference", "low", "high", "p"}
    answers = (tmp_path / "forgetting_replay-0.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(answers) == sum(v["n"] for k, v in report["base"].items() if k not in DERIVED)
    code, again, _ = run(command.main, "--report", output)
    assert code == 0 and again.strip() in out
    assert "0 of 8" in again and "4 of 8" in again


DERIVED = ("glasses", "general_mixed", "general_unmixed")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--report", "nowhere.json"), "nowhere.json: no such file; `make forgetting` writes it"),
        (("--adapter-path", "base"), "name base and at least one adapter"),
        (("--adapter-path", "replay-0=POINTS/none"), "name base and at least one adapter"),
        (("--adapter-path", "base", "a=POINTS/none", "--default", "b"), "--default b: no such point; there are a"),
        (("--adapter-path", "base", "a=POINTS/missing"), "no adapter here"),
    ],
)
def test_wrong_input_is_one_line(run, points, flags, words):
    code, _, error = run(command.main, *(flag.replace("POINTS", str(points)) for flag in flags))
    assert (code, error.count("\n")) == (1, 1) and words in error
