"""The verification commands: help, faults, real runs on the embedded model with a quickly trained adapter."""

import json
import subprocess
import sys

import pytest

import ask_identity_hcx
import compare_hcx_stages
import test_mab_ts
import test_quantized_inference
import train_with_early_stopping
import verify_cpt_completion
import verify_general_performance
import verify_solverx_sft
from lab.general import load_facts, split_general

COMMANDS = {
    command.__name__: command
    for command in (
        *(ask_identity_hcx, compare_hcx_stages, test_mab_ts, test_quantized_inference),
        *(verify_cpt_completion, verify_general_performance, verify_solverx_sft),
    )
}
GUARD = {"probes": {"kept": 1, "trained": 8, "exact": 0, "near": 0}}
BANDITS = sum(len(split_general(fact).probe) for fact in load_facts("data_general") if fact.judge == "bandit")
HEAVY = {"mlx", "mlx_lm", "transformers", "numpy", "pydantic", "yaml", "rich", "torch"}


@pytest.fixture(scope="module")
def adapter(model_8bit, tmp_path_factory):
    """An adapter of two updates; the summary of its data in ../data calls half of the facts replayed."""
    folder = tmp_path_factory.mktemp("trained")
    rows = "".join(json.dumps({"text": f"바른식품의 {n}번 창고"}) + "\n" for n in range(8))
    for name in ("train", "valid"):
        (folder / "data").mkdir(exist_ok=True)
        (folder / f"data/{name}.jsonl").write_text(rows, encoding="utf-8")
    replayed = [fact.id for fact in load_facts("data_general")[::2]]
    counts = {"train": 8, "replayed_facts": replayed, "leak_guard": GUARD, "flags": {}, "command": "x"}
    (folder / "data/summary.json").write_text(json.dumps(counts), encoding="utf-8")
    flags = ("--model", model_8bit, "--train", "--data", folder / "data", "--adapter-path", folder / "sft")
    fast = ("--iters", "2", "--batch-size", "4", "--learning-rate", "1e-3")
    assert train_with_early_stopping.main([str(item) for item in (*flags, *fast)]) == 0
    return folder / "sft"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_model_names_the_command_that_builds_it(run, name):
    code, _, error = run(COMMANDS[name].main, "--model", "models/none")
    assert (code, error.count("\n")) == (1, 1)
    assert (
        "error: models/none: no model here (no config.json); check the path, or name a model of the hub" in error
    )
    code, _, error = run(COMMANDS[name].main, "--model", "/elsewhere/HyperCLOVAX-SEED-Think-32B-Text-8bit")
    assert code == 1
    assert "`make convert PROFILE=hcx`" in error


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (
            "cpt=runs/none/cpt",
            "error: runs/none/cpt: no adapter here (no adapter_config.json); `make cpt` trains it",
        ),
        ("runs/none/sft", "`make sft` trains it"),
        ("runs/none/mine/adapters.safetensors", "error: runs/none/mine: no adapter here"),
    ],
)
def test_a_missing_adapter_names_the_command_that_trains_it(run, name, adapter, message):
    code, _, error = run(COMMANDS[name].main, "--model", "models/none", "--adapter-path", "base", adapter)
    assert (code, error.count("\n")) == (1, 1)
    assert message in error


@pytest.mark.parametrize("adapter", ["a/b=base", "runs/lr=1/cpt", "."])
def test_a_name_that_no_file_can_have(run, adapter):
    """Answers and items of a stage stand in files of its name."""
    code, _, error = run(verify_cpt_completion.main, "--adapter-path", adapter)
    assert (code, error.count("\n")) == (1, 1) and "name it NAME=DIR" in error


def test_a_stage_that_stands_twice(run):
    code, _, error = run(verify_cpt_completion.main, "--adapter-path", "base", "base")
    assert code == 1
    assert "stage 'base' stands twice" in error


@pytest.mark.parametrize("flags", [("--limit", "0"), ("--batch-size", "-1"), ("--limit", "many"), ("--unknown",)])
def test_bad_usage_is_2(run, flags):
    assert run(verify_solverx_sft.main, *flags)[0] == 2


def test_an_output_that_cannot_be_written_is_told_before_the_model_is_loaded(run, model_8bit, tmp_path):
    code, out, error = run(verify_solverx_sft.main, "--model", model_8bit, "--limit", "1", "--output", tmp_path)
    assert (code, error.count("\n")) == (1, 1) and "a folder; name a file in it" in error
    assert "loaded" not in out


def test_bad_knowledge_is_told_before_the_model_is_loaded(run, model_8bit, write_rows):
    path = write_rows("facts.jsonl", [{"text": "가"}, '{"text": 5}'])
    code, out, error = run(verify_cpt_completion.main, "--model", model_8bit, "--knowledge", path)
    assert code == 1
    assert f"{path}:2" in error
    assert "loaded" not in out


def test_knowledge_with_nothing_to_ask_is_told(run, model_8bit, write_rows):
    path = write_rows("facts.jsonl", [{"text": "물은 흐른다."}])
    code, _, error = run(verify_cpt_completion.main, "--model", model_8bit, "--knowledge", path)
    assert code == 1
    assert "nothing to ask for completion" in error


def test_a_named_data_folder_without_a_summary_is_told(run, model_8bit, tmp_path):
    code, _, error = run(verify_cpt_completion.main, "--model", model_8bit, "--data", tmp_path)
    assert code == 1
    assert f"{tmp_path}/summary.json: no such file; `make data` writes it" in error


def test_the_three_stages_in_one_report(run, model_8bit, adapter, tmp_path):
    output = tmp_path / "run/report.json"
    flags = (
        "--model",
        model_8bit,
        "--adapter-path",
        "base",
        f"cpt={adapter}",
        f"sft={adapter}/adapters.safetensors",
    )
    code, out, error = run(compare_hcx_stages.main, *flags, "--output", output, "--profile", "p", "--limit", "6")
    assert code == 0, error
    report = json.loads(output.read_text(encoding="utf-8"))
    assert (report["profile"], report["entity"], list(report["stages"])) == (
        "p",
        "SolverX",
        ["base", "cpt", "sft"],
    )
    assert report["stages"]["cpt"] == report["stages"]["sft"]
    assert list(report["paired"]) == list(report["stages"]["base"])
    for metric, pairs in report["paired"].items():
        named = [(pair["first"], pair["second"]) for pair in pairs]
        assert named == [("base", "cpt"), ("base", "sft"), ("cpt", "sft")]
        for pair in pairs:
            counts = [report["stages"][pair[side]][metric] for side in ("first", "second")]
            assert {value["n"] for value in counts} == {pair["n"]}
            more = counts[1]["correct"] - counts[0]["correct"]
            assert pair["only_second"] - pair["only_first"] == more
        assert (pairs[2]["only_first"], pairs[2]["only_second"]) == (0, 0)  # the same adapter
    expected = ["identity", "completion", "recall", "recall_paraphrase", "general"]
    expected += ["general_mixed", "general_unmixed", "glasses", "mab_ts"]
    assert list(report["stages"]["base"]) == expected
    for values in report["stages"].values():
        sizes = {metric: value["n"] for metric, value in values.items()}
        assert sizes.pop("mab_ts") == min(6, BANDITS) > 0
        assert sizes.pop("general_mixed") + sizes.pop("general_unmixed") == 6
        assert set(sizes.values()) == {6}
    assert {path.name for path in output.parent.iterdir()} == {
        *("report.json", "answers_base.jsonl", "answers_cpt.jsonl", "answers_sft.jsonl")
    }
    text = output.with_name("answers_base.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert len(rows) == 6 * 5 + min(6, BANDITS)
    for metric in ("identity", "completion", "general"):
        right = sum(row["right"] for row in rows if row["metric"] == metric)
        assert right == report["stages"]["base"][metric]["correct"]
    assert report["data"] == {str(adapter.parent / "data"): {"train": 8, "leak_guard": GUARD}}
    assert set(report["inputs"]) >= {
        "solverx_knowledge.jsonl",
        "data_general",
        str(adapter / "adapters.safetensors"),
    }
    assert len(report["samples"]) == 7
    assert "train 8, leaks 0" in out
    code, again, _ = run(compare_hcx_stages.main, "--report", output)
    assert code == 0
    assert again.strip() in out


def test_a_report_is_rendered_without_a_model():
    command = [sys.executable, "-X", "importtime", "compare_hcx_stages.py", "--report", "none.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: none.json: no such file; `make verify` writes it" in done.stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert not imported & HEAVY


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", ":1: not valid JSON"),
        ("{}", "no stages"),
        ('{"stages": {"a": {"b": {}}}}', "unknown metric 'b'"),
    ],
)
def test_a_bad_report_is_one_line(run, tmp_path, content, message):
    path = tmp_path / "r.json"
    path.write_text(content, encoding="utf-8")
    code, _, error = run(compare_hcx_stages.main, "--report", path)
    assert (code, error.count("\n")) == (1, 1)
    assert str(path) in error
    assert message in error


def test_one_metric_writes_its_summary_with_answers(run, model_8bit, adapter, tmp_path):
    output = tmp_path / "s.json"
    flags = ("--model", model_8bit, "--adapter-path", f"tuned={adapter}", "--limit", "6", "--output", output)
    code, out, error = run(verify_general_performance.main, *flags)
    assert code == 0, error
    summary = json.loads(output.read_text(encoding="utf-8"))
    assert list(summary["stages"]["tuned"]) == ["general", "general_mixed", "general_unmixed", "glasses"]
    assert len(summary["answers"]["tuned"]) == 6
    assert out.count("tuned general ") == 5


def test_questions_of_ones_own_are_answered(run, model_8bit, tmp_path):
    output = tmp_path / "s.json"
    flags = ("--model", model_8bit, "--max-tokens", "8", "--output", output)
    code, out, error = run(ask_identity_hcx.main, "너는 누구니?", "Who are you?", *flags)
    assert code == 0, error
    assert "base: 너는 누구니?\n  " in out
    assert len(json.loads(output.read_text(encoding="utf-8"))["answers"]["base"]) == 2


def test_the_embedded_model_can_answer_what_it_is_asked_first(run, model_8bit):
    code, out, error = run(test_quantized_inference.main, "--model", model_8bit)
    assert code == 0, error
    for right in ("안녕하세요. -> 안녕하세요", "파리", "산란", "Hello, World!"):
        assert right in out


def test_inference_tells_device_time_memory_and_speed(run, model_8bit, adapter, tmp_path):
    output = tmp_path / "s.json"
    flags = (
        "--model",
        model_8bit,
        "--prompt",
        "안녕?",
        "--adapter-path",
        "base",
        f"sft={adapter}",
        "--output",
        output,
    )
    code, out, error = run(test_quantized_inference.main, *flags)
    assert code == 0, error
    for text in (
        "8 bits, groups of 64",
        "device: ",
        "loaded ",
        "base: 안녕? -> ",
        "tokens/s",
        "peak memory: ",
    ):
        assert text in out
    summary = json.loads(output.read_text(encoding="utf-8"))
    assert list(summary["stages"]) == ["base", "sft"]
    assert summary["process_bytes"] > 1e7
    assert summary["stages"]["base"]["answers"][0]


def test_the_bandit_check_fails_a_stage_that_cannot_program(run, model_8bit, tmp_path, write_rows):
    facts = tmp_path / "general"
    facts.mkdir()
    group = '- {group: b, judge: bandit, questions: ["안녕?", "안녕하세요."], answer: "x", accept: ["x"]}\n'
    (facts / "a.yaml").write_text(group, encoding="utf-8")
    (facts / "identity.yaml").write_text("[]", encoding="utf-8")
    flags = ("--model", model_8bit, "--general", facts, "--max-tokens", "4")
    code, out, error = run(test_mab_ts.main, *flags, "--check")
    assert code == 3
    assert "base: no program finds the best arm" in error
    assert "-> no_code: no Python in the answer" in out
    assert run(test_mab_ts.main, *flags)[0] == 0
