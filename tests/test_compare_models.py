"""compare_models.py on the embedded model with adapters that were hardly trained, and what it says of wrong input."""

import io
import json
import shutil
from functools import reduce
from operator import getitem

import pytest

import compare_models as command
import train_with_early_stopping
from lab import comparison, comparison_table, costs, lineage, measured, verification
from lab.cli import LabError
from tests import made_runs


@pytest.fixture(scope="module")
def adapters(model_8bit, tmp_path_factory):
    """A folder with the adapters two/ and dora/, of two updates; they were trained on model_8bit."""
    folder = tmp_path_factory.mktemp("trained")
    rows = "".join(json.dumps({"text": f"바른식품의 {n}번 창고"}) + "\n" for n in range(8))
    for part in ("train", "valid"):
        (folder / "data").mkdir(exist_ok=True)
        (folder / f"data/{part}.jsonl").write_text(rows, encoding="utf-8")
    for name, kind in (("two", "lora"), ("dora", "dora")):
        flags = ("--model", model_8bit, "--train", "--data", folder / "data", "--adapter-path", folder / name)
        fast = ("--iters", "2", "--batch-size", "4", "--learning-rate", "1e-3", "--fine-tune-type", kind)
        assert train_with_early_stopping.main([str(item) for item in (*flags, *fast)]) == 0
    return folder


QUICK = ("--limit", "2", "--repeats", "2", "--speed-prompts", "2", "--speed-tokens", "3", "--program-tokens", "8")


@pytest.fixture(scope="module")
def compared(model_8bit, adapters, tmp_path_factory):
    """(comparison as it was written, its file)."""
    output = tmp_path_factory.mktemp("run") / "models.json"
    named = ("base", f"tuned={adapters / 'two'}", f"dora={adapters / 'dora'}")
    flags = ("--model", model_8bit, "--adapter-path", *named, "--output", output, *QUICK)
    assert command.main([str(item) for item in flags]) == 0
    return json.loads(output.read_text(encoding="utf-8")), output


def test_every_stage_answers_the_same_questions_in_one_file(compared):
    content, output = compared
    assert measured.read_comparison(output, "x") == content
    assert (
        list(content["stages"]) == list(content["answers"]) == list(content["speed"]) == ["base", "tuned", "dora"]
    )
    asked = [[(row["metric"], row["prompt"]) for row in rows] for rows in content["answers"].values()]
    assert asked[0] == asked[1] == asked[2]
    wanted = {"recall", "recall_paraphrase", "general", "glasses", "mab_ts"}
    assert all(set(metrics) == wanted for metrics in content["stages"].values())
    pairs = [(pair["first"], pair["second"]) for pair in content["paired"]["general"]]
    assert pairs == [("base", "tuned"), ("base", "dora"), ("tuned", "dora")]
    assert {sample["metric"] for sample in content["samples"]} == wanted - {"glasses"}
    assert any(name.endswith("two/adapters.safetensors") for name in content["inputs"])


def test_what_is_counted_is_what_was_answered(compared):
    content, _ = compared
    for stage, rows in content["answers"].items():
        assert verification.count(rows, content["entity"]) == content["stages"][stage]


def test_sizes_are_those_of_the_files(compared, adapters, model_8bit):
    content, _ = compared
    assert content["model_size"] == {
        "bytes": (model_8bit / "model.safetensors").stat().st_size,
        "parameters": 2066112,
    }
    for stage, folder in (("tuned", "two"), ("dora", "dora")):
        size, training = content["sizes"][stage], content["training"][stage]
        names = ("adapters.safetensors", "adapter_config.json")
        assert size["bytes"] == sum((adapters / folder / name).stat().st_size for name in names)
        assert size["trained_parameters"] == training["trained_parameters"]
        assert size["share"] == pytest.approx(size["trained_parameters"] / 2066112, abs=1e-6)
        assert training["updates"] == training["iterations"] == 2
    tuned, dora = (content["sizes"][stage] for stage in ("tuned", "dora"))
    assert tuned["kind"].startswith("lora, rank 8") and dora["kind"].startswith("dora, rank 8")
    assert dora["trained_parameters"] > tuned["trained_parameters"]  # a magnitude for each output


def test_a_comparison_is_printed_again_from_its_file(run, compared):
    content, output = compared
    code, out, error = run(command.main, "--report", output, "--show", "1")
    assert code == 0, error
    first = next(row for row in content["answers"]["base"] if row["metric"] == "recall")
    for words in (
        "recall_paraphrase",
        "base -> tuned",
        "lora, rank 8",
        "writing the answer, tokens/s",
        "2,066,112",
    ):
        assert words in out
    assert out.count("recall: ") == 1 and f"{first['metric']}: " in out


@pytest.mark.parametrize("wrong", [None, "x", -1, [], {"a": None}])
def test_whatever_stands_in_a_comparison_is_printed_or_refused(tmp_path, wrong):
    """Every value that is not the report's in turn becomes something else: figures are printed, or a LabError names the file."""
    refused, file, good = 0, tmp_path / "models.json", made_runs.comparison(("base", "lora", "full"))
    good["answers"] = {stage: rows[:3] for stage, rows in good["answers"].items()}
    own = ("answers", "speed", "asked", "model_size", "sizes", "training", "peak", "load_seconds")
    for path in (path for path in made_runs.places(good) if path and path[0] in own):
        content = json.loads(json.dumps(good))
        reduce(getitem, path[:-1], content)[path[-1]] = wrong
        made_runs.write(file, content)
        try:
            found = comparison.read(file)
            comparison_table.show(found, comparison.samples(found, 2), io.StringIO())
        except LabError as error:
            refused += 1
            assert str(file) in str(error)
    assert refused > 50


def test_training_whose_cost_nobody_kept_has_no_line():
    content = made_runs.comparison(("base", "lora", "full"))
    content["training"] = {"lora": dict.fromkeys(("seconds", "updates", "process_bytes", "device_bytes"))}
    assert comparison_table.training_lines(content) == []


@pytest.mark.parametrize(
    ("limits", "code", "words"),
    [
        ("base: {recall: {at_most: 1.0}}\n", 0, "holds: base recall"),
        ("tuned: {recall: {at_least: 1.0}}\n", 3, "does not hold: tuned recall"),
        ("tuned: {recal: {at_least: 1.0}}\n", 1, "tuned: unknown metric 'recal'"),
        ("last: {recall: {at_least: 1.0}}\n", 1, "unknown stage 'last'; known: base, tuned, dora"),
    ],
)
def test_bounds_are_checked(run, compared, tmp_path, limits, code, words):
    (tmp_path / "bounds.yaml").write_text(limits, encoding="utf-8")
    found, out, error = run(command.main, "--report", compared[1], "--check", tmp_path / "bounds.yaml")
    assert found == code and words in (out + error)


def test_questions_of_ones_own_with_and_without_a_right_answer(run, model_8bit, adapters, write_rows, tmp_path):
    rows = [
        {"question": "프랑스의 수도는 어디인가요?", "accept": ["파리"]},
        {"question": "프랑스의 수도는 어디인가요?", "accept": "런던"},
        {"question": "오늘 기분은 어때?"},
    ]
    path, output = write_rows("mine.jsonl", rows), tmp_path / "out/models.json"
    named = ("base", f"tuned={adapters / 'two'}")
    flags = ("--model", model_8bit, "--adapter-path", *named, "--questions", path, "--output", output, *QUICK)
    code, out, error = run(command.main, *flags, "--knowledge", "nowhere.jsonl")
    assert code == 0, error
    content = measured.read_comparison(output, "x")
    base = content["stages"]["base"]["questions"]
    assert (base["correct"], base["n"]) == (1, 2)
    assert [row["right"] for row in content["answers"]["base"]] == [True, False, None]
    assert "base  + " in out and "base  - " in out and "base    " in out
    assert str(path) in content["inputs"] and "solverx_knowledge.jsonl" not in content["inputs"]


def test_own_questions_and_chosen_metrics_together(run, model_8bit, adapters, write_rows, tmp_path):
    path = write_rows("mine.jsonl", [{"question": "프랑스의 수도는 어디인가요?", "accept": ["파리"]}])
    flags = ("--model", model_8bit, "--adapter-path", "base", f"a={adapters / 'two'}", "--questions", path, *QUICK)
    output = tmp_path / "models.json"
    code, out, error = run(command.main, *flags, "--metrics", "identity", "completion", "--output", output)
    assert code == 0, error
    content = measured.read_comparison(output, "x")
    assert list(content["stages"]["a"]) == ["identity", "completion", "questions"]
    assert {str(path), "solverx_knowledge.jsonl", "data_general"} <= content["inputs"].keys()
    assert [sample["metric"] for sample in content["samples"]] == ["questions", "identity", "completion"]


def test_without_any_right_answer_they_are_shown_and_not_counted(run, model_8bit, adapters, write_rows, tmp_path):
    path = write_rows("mine.jsonl", [{"question": "너는 누구니?"}])
    flags = ("--model", model_8bit, "--adapter-path", "base", f"a={adapters / 'two'}", "--questions", path, *QUICK)
    code, out, error = run(command.main, *flags, "--output", tmp_path / "models.json")
    assert code == 0, error
    assert measured.read_comparison(tmp_path / "models.json", "x")["stages"] == {"base": {}, "a": {}}
    assert "questions: 너는 누구니?" in out and "metric" not in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.jsonl:1: empty file"),
        ('{"question": " "}\n', 'mine.jsonl:1: "question" is empty or not a string'),
        (
            '{"question": "a"}\n{"prompt": "b"}\n',
            'mine.jsonl:2: unknown key "prompt"; a row is {"question", "accept"}',
        ),
        ('{"question": "a", "accept": [1]}\n', 'mine.jsonl:1: "accept" is not a list of strings'),
        ('{"question": "a", "accept": ""}\n', 'mine.jsonl:1: "accept" is not a list of strings'),
        ('{"question": "a", "accept": {"b": 1}}\n', 'mine.jsonl:1: "accept" is not a list of strings'),
        ('{"question": "a"\n', "mine.jsonl:1: not valid JSON"),
    ],
)
def test_a_bad_file_of_questions_is_one_line(run, model_8bit, adapters, tmp_path, text, message):
    path = tmp_path / "mine.jsonl"
    path.write_text(text, encoding="utf-8")
    flags = ("--model", model_8bit, "--adapter-path", "base", f"a={adapters / 'two'}", "--questions", path)
    code, out, error = run(command.main, *flags)
    assert (code, out, error.count("\n")) == (1, "", 1) and message in error


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--adapter-path", "base"), 1, "name base once and at least one adapter, `base tuned=DIR`"),
        (("--adapter-path", "a=FOLDER/two", "b=FOLDER/dora"), 1, "name base once and at least one adapter"),
        (("--adapter-path", "base", "bare=base", "a=FOLDER/two"), 1, "name base once"),
        (
            ("--adapter-path", "base", "a=FOLDER/two", "a=FOLDER/dora"),
            1,
            "stage 'a' stands twice; tell them apart",
        ),
        (("--adapter-path", "base", "a=FOLDER/none"), 1, "FOLDER/none: no adapter here (no adapter_config.json)"),
        (
            ("--adapter-path", "base", "a=FOLDER/two", "--output", "FOLDER"),
            1,
            "FOLDER: a folder; name a file in it",
        ),
        (("--model", "models/none", "--adapter-path", "base", "a=FOLDER/two"), 1, "models/none: no model here"),
        (("--repeats", "0"), 2, "'0' is no whole number of at least 1"),
        (("--metrics", "recal"), 2, "invalid choice: 'recal'"),
        (("--speed-tokens", "1"), 2, "'1' is no whole number of at least 2"),
        (("--report", "a.json", "--output", "b.json"), 2, "--report only prints, --output goes without it"),
        (("--report", "nowhere.json"), 1, "nowhere.json: no such file; `make gemma` writes it"),
        (("--adapter-path", "base", "a=FOLDER/two", "--knowledge", "no.jsonl"), 1, "no.jsonl: cannot read"),
    ],
)
def test_wrong_input_is_one_line(run, model_8bit, adapters, flags, code, message):
    given = [flag.replace("FOLDER", str(adapters)) for flag in flags]
    found, _, error = run(command.main, "--model", model_8bit, *given)
    assert found == code and message.replace("FOLDER", str(adapters)) in error
    assert code == 2 or error.count("\n") == 1


def test_an_adapter_of_another_model_is_refused_before_anything_is_loaded(run, model_8bit, adapters, tmp_path):
    for path in model_8bit.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    other = bytearray((tmp_path / "model.safetensors").read_bytes())
    other[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(other)
    named = ("base", f"a={adapters / 'two'}")
    code, out, error = run(command.main, "--model", tmp_path, "--adapter-path", *named, *QUICK)
    assert (code, out) == (1, "")
    assert (
        f"error: {adapters / 'two'}: trained on {model_8bit}, which has another model.safetensors; name" in error
    )


@pytest.mark.parametrize("named", [None, "models/Gemma"])
def test_an_adapter_from_elsewhere_says_at_most_the_name_of_its_model(
    model_8bit, adapters, tmp_path, capsys, named
):
    (tmp_path / "adapters.safetensors").write_bytes((adapters / "two/adapters.safetensors").read_bytes())
    config = json.loads((adapters / "two/adapter_config.json").read_text(encoding="utf-8")) | {"model": named}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    args = command.parse_args(["--model", str(model_8bit), "--adapter-path", "base", f"a={tmp_path}"])
    assert [stage.name for stage in comparison.check_stages(args)] == ["base", "a"]
    said = f"warning: {tmp_path} was trained on {named}; this is {model_8bit}\n" if named else ""
    lineage.warn_of_other_model(tmp_path, model_8bit)
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("change", ["another adapter", "one in the making"])
def test_what_training_took_is_told_of_the_adapter_that_it_made_alone(adapters, tmp_path, change):
    copy = shutil.copytree(adapters / "two", tmp_path / "two")
    assert costs.training(copy)["updates"] == 2
    if change == "another adapter":
        shutil.copy(adapters / "dora/adapters.safetensors", copy)
    else:  # a new run takes the summary away when it begins
        (copy / "summary.json").unlink()
    assert costs.training(copy) == {}
