"""The KMMLU command on the embedded model: help, faults, scores, a kill in the middle, the hub's stand-in."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import evaluate_kmmlu_8bit as command
import prepare_kmmlu_sample
from lab import kmmlu_data, measured
from tests import crash_runs
from tests.hub_server import Hub

ROOT = Path(__file__).resolve().parent.parent
PROVENANCE = ("command", "flags", "inputs", "versions", "commit")


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kmmlu") / "sample"
    assert prepare_kmmlu_sample.main(["--output-dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, model_8bit):
    """An adapter of the embedded model, made but not trained: it must not change an answer's order much."""
    from lab import adapters, models
    from lab.device import mx

    model, _ = models.load(model_8bit)
    config = {
        "fine_tune_type": "lora",
        "num_layers": -1,
        "lora_parameters": {"rank": 2, "scale": 20.0, "dropout": 0.0},
    }
    mx.random.seed(3)
    adapters.add_layers(model, config)
    from mlx.utils import tree_flatten

    tensors = {
        name: mx.random.normal(value.shape) * 0.05 for name, value in tree_flatten(model.trainable_parameters())
    }
    folder = tmp_path_factory.mktemp("adapter") / "noise"
    adapters.save(folder, tensors, config)
    return folder


@pytest.fixture
def evaluate(run, model_8bit, sample):
    """A function that runs the command on the sample; returns (exit code, printed, error)."""

    def call(*flags, data=sample):
        return run(command.main, "--model", model_8bit, "--data-dir", data, *flags)

    return call


def content(path):
    return {
        key: value for key, value in json.loads(path.read_text(encoding="utf-8")).items() if key not in PROVENANCE
    }


def test_help_loads_no_mlx():
    done = subprocess.run(
        [sys.executable, ROOT / "evaluate_kmmlu_8bit.py", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "--subset" in done.stdout and "--fewshot-order" in done.stdout
    loaded = "import sys, evaluate_kmmlu_8bit; print([name for name in sys.modules if name.startswith('mlx')])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_sample_is_no_kmmlu_and_its_labels_are_balanced(sample):
    subjects = kmmlu_data.sample_subjects(sample)
    assert len(subjects) >= 4 and not set(subjects) & set(kmmlu_data.listing().subjects)
    files = kmmlu_data.in_folder(sample, kmmlu_data.choose(["all"], subjects), ["dev", "test"])
    items = {key: kmmlu_data.read_items(path, kmmlu_data.KMMLU, key[0]) for key, path in files.paths.items()}
    assert {len(found) for (_, split), found in items.items() if split == "dev"} == {5}
    tested = [item for (_, split), found in items.items() if split == "test" for item in found]
    labels = [sum(item.label == label for item in tested) for label in (1, 2, 3, 4)]
    assert 150 < len(tested) < 300 and max(labels) - min(labels) <= len(subjects)
    assert all(len(set(item.options)) == 4 for item in tested)
    assert len({item.question for item in tested}) == len(tested)


def test_stages_side_by_side_in_one_load(evaluate, adapter, tmp_path):
    flags = ["--limit", "3", "--shots", "2", "--adapter-path", "base", f"noise={adapter}", "again=base"]
    code, printed, _ = evaluate(*flags, "--output", tmp_path / "kmmlu.json")
    report = content(tmp_path / "kmmlu.json")
    assert code == 0 and printed.count("loaded ") == 1 and "NOT KMMLU" in printed
    assert measured.read_kmmlu(tmp_path / "kmmlu.json")["stages"] == report["stages"]  # as the page reads it
    assert (report["task"], report["sample"], report["shots"], report["chance"]) == ("kmmlu", True, 2, 0.25)
    assert list(report["stages"]) == ["base", "noise", "again"] and len(report["paired"]) == 3
    assert report["stages"]["base"] == report["stages"]["again"]
    rows = {stage: (tmp_path / f"kmmlu_{stage}.jsonl").read_bytes() for stage in report["stages"]}
    assert rows["base"] == rows["again"] != rows["noise"]
    same = next(pair for pair in report["paired"] if (pair["first"], pair["second"]) == ("base", "again"))
    assert (same["difference"], same["p"]) == (0, 1)
    first = json.loads(rows["base"].splitlines()[0])
    assert first["right"] == (first["picked"] == first["label"]) and list(first["loglikelihoods"]) == list("ABCD")
    assert report["stages"]["base"]["micro"]["n"] == 15 == len(rows["base"].splitlines())


def test_killed_and_run_again_it_ends_with_the_same_bytes(model_8bit, sample, adapter, tmp_path):
    def start(folder):
        flags = "--shots 1 --batch-size 2 --limit 6 --adapter-path base".split() + [f"noise={adapter}"]
        places = ["--model", str(model_8bit), "--data-dir", str(sample), "--output", str(folder / "kmmlu.json")]
        line = [sys.executable, "evaluate_kmmlu_8bit.py", *flags, *places]
        return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).communicate() and (whole / "kmmlu.json").is_file()
    process = start(killed)
    items = killed / "kmmlu_base.jsonl"
    while not (items.is_file() and items.stat().st_size > 2000) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    had = len(items.read_bytes().splitlines())
    assert process.returncode == -signal.SIGKILL and not (killed / "kmmlu.json").exists() and had > 0
    again = start(killed)
    said, _ = again.communicate()
    assert again.returncode == 0 and "of them from an earlier run" in said
    for name in ("kmmlu_base.jsonl", "kmmlu_noise.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert content(killed / "kmmlu.json") == content(whole / "kmmlu.json")


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--subset", "General-Knowledge"], "--subset General-Knowledge: KMMLU has no such subject; HAE-RAE has"),
        (["--subset", "sample geography", "sample-scienc"], "did you mean Sample-Science"),
        (["--adapter-path", "nowhere"], "nowhere: no adapter here"),
        (["--revision", "main"], "is a folder, which has none"),
        (["--output", "README.md/kmmlu.json"], "README.md is a file; choose another folder"),
        (["--subset", "haerae-general-knowledge"], "no data/general_knowledge-test.csv"),
    ],
)
def test_a_fault_is_one_line_before_the_model_is_loaded(evaluate, flags, words):
    code, printed, error = evaluate(*flags)
    assert code == 1 and words in error and len(error.splitlines()) == 1 and "loaded" not in printed


def test_an_adapter_that_does_not_fit_is_one_line(evaluate, tmp_path):
    folder = crash_runs.make_world(tmp_path / "world")
    crash_runs.finish(folder, folder)
    code, _, error = evaluate("--adapter-path", f"other={folder / 'adapters'}", "--limit", "1")
    assert code == 1 and "does not fit" in error and len(error.splitlines()) == 1


def test_five_options(evaluate, tmp_path):
    rows = "".join(
        f'"물음 {number} (A) 가 (B) 나 (C) 다 (D) 라 (E) 마 정답:",({"ABCDE"[number % 5]})\n'
        for number in range(8)
    )
    (tmp_path / "general_knowledge-test.csv").write_text("query,answer\n" + rows, encoding="utf-8")
    flags = ["--subset", "haerae-general-knowledge", "--shots", "2", "--output", tmp_path / "kmmlu.json"]
    code, printed, _ = evaluate(*flags, data=tmp_path)
    report = content(tmp_path / "kmmlu.json")
    assert code == 0 and (report["task"], report["chance"]) == ("haerae_general_knowledge", 0.2)
    assert list(report["stages"]["base"]["letters"]) == list("ABCDE") and "20 %" in printed


def test_from_the_hub_by_commit(model_8bit, sample, tmp_path):
    """The files that are needed, of one commit, then from the cache; wrong bytes are refused."""
    text = (sample / "data/Sample-Words-test.csv").read_text(encoding="utf-8")
    with Hub() as hub:
        names = ("Law-test", "Law-dev", "korean-history-test", "Biology-test")
        files = {f"data/{name}.csv": text.replace("Sample-Words", name).encode() for name in names}
        commit = hub.add("HAERAE-HUB/KMMLU", files)

        def evaluate(*flags, **more):
            base = [sys.executable, "evaluate_kmmlu_8bit.py", "--model", str(model_8bit), "--limit", "2"]
            base += ["--revision", "main"]
            environment = hub.environment(tmp_path / "home", **more)
            return subprocess.run([*base, *flags], cwd=ROOT, env=environment, capture_output=True, text=True)

        hub.order("bytes", "Law-test.csv", at=5)
        wrong = evaluate("--subset", "law", "korean-history")
        assert wrong.returncode == 1 and "wrong bytes came" in wrong.stderr and len(wrong.stderr.splitlines()) == 1
        done = evaluate("--subset", "law", "korean-history", "--output", str(tmp_path / "kmmlu.json"))
        assert done.returncode == 0, done.stderr
        report = content(tmp_path / "kmmlu.json")
        assert report["source"] == f"HAERAE-HUB/KMMLU@{commit}" and report["sample"] is False
        assert report["stages"]["base"]["groups"] == {}  # two of HUMSS are not HUMSS
        assert not hub.asked("Biology-test.csv") and not hub.asked("Law-dev.csv")
        offline = evaluate("--subset", "law", HF_HUB_OFFLINE="1")
        assert offline.returncode == 0 and f"the cache's {commit} is used" in offline.stdout
        missing = evaluate("--subset", "law", "math")
        assert missing.returncode == 1 and f"the commit {commit} lacks data/math-test.csv" in missing.stderr
        gone = evaluate("--subset", "law", "--revision", "nowhere")
        assert gone.returncode == 1 and "no revision nowhere" in gone.stderr
        pinned = evaluate("--subset", "law", "--revision", "")
        assert f"no revision {kmmlu_data.listing().revision}" in pinned.stderr, (
            "without a word it is KMMLU's pinned commit"
        )
