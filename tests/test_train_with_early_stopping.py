"""Real training runs of a few updates on the embedded model."""

import json

import pytest

import train_with_early_stopping as command
from lab.adapters import read_weights
from lab.chat import encode_row
from lab.device import mx

FAST = (
    "--iters",
    "12",
    "--batch-size",
    "4",
    "--steps-per-eval",
    "4",
    "--steps-per-report",
    "4",
    "--learning-rate",
    "1e-3",
)


@pytest.fixture
def data(write_rows, tmp_path):
    texts = [
        f"바른식품의 {number}번 창고는 {town}에 있다."
        for number, town in enumerate("부산 대구 인천 광주 울산 제주 전주".split())
    ]
    write_rows("data/train.jsonl", [{"text": text} for text in texts])
    write_rows("data/valid.jsonl", [{"text": text.replace("에 있다", "에 자리한다")} for text in texts[:3]])
    return tmp_path / "data"


def curve(folder):
    return [json.loads(line) for line in (folder / "curve.jsonl").read_text(encoding="utf-8").splitlines()]


def train(run, model, data, folder, *more):
    return run(command.main, "--model", model, "--train", "--data", data, "--adapter-path", folder, *FAST, *more)


def test_loss_falls_and_the_folder_is_complete(run, model_8bit, data, tmp_path):
    code, out, error = train(run, model_8bit, data, tmp_path / "a")
    assert code == 0, error
    losses = [row["valid_loss"] for row in curve(tmp_path / "a") if "valid_loss" in row]
    assert losses[-1] < losses[0] - 0.5
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"adapters.safetensors", "adapter_config.json", "curve.jsonl", "summary.json", "cost.json"}
    summary = json.loads((tmp_path / "a/summary.json").read_text(encoding="utf-8"))
    assert summary["best_valid_loss"] == min(losses[1:])
    assert summary["sequences"] == {"train": 7, "valid": 3}
    assert 0 < summary["padding"]["share"] < 0.5 and summary["padding"]["shapes"] == 2
    assert summary["flags"]["learning_rate"] == 1e-3
    cost = json.loads((tmp_path / "a/cost.json").read_text(encoding="utf-8"))
    tensors = read_weights(tmp_path / "a/adapters.safetensors")
    assert cost["trained_parameters"] == sum(value.size for value in tensors.values())
    assert cost["updates"] == 12 and cost["seconds"] > 0
    assert cost["process_bytes"] > cost["device_bytes"] > 4 * cost["trained_parameters"]


def test_the_best_adapter_is_kept_not_the_last(run, model_8bit, data, tmp_path):
    from lab import models, training
    from lab.tuning import limited, load

    steep = ("--iters", "40", "--learning-rate", "5e-3", "--patience", "0")
    code, _, error = train(run, model_8bit, data, tmp_path / "a", *steep)
    assert code == 0, error
    summary = json.loads((tmp_path / "a/summary.json").read_text(encoding="utf-8"))
    assert summary["best_iteration"] < 40
    model, tokenizer = models.load(model_8bit, tmp_path / "a")
    args = command.parse_args(["--model", str(model_8bit), "--data", str(data), "--train"])
    from lab.settings import resolve

    settings, _ = resolve(vars(args))
    batches = limited(load(settings, tokenizer, data / "valid.jsonl"), settings, -1)
    assert training.evaluate(model, batches) == pytest.approx(summary["best_valid_loss"], abs=1e-5)


def test_patience_stops_the_run(run, model_8bit, data, tmp_path):
    never_better = ("--iters", "40", "--learning-rate", "0", "--patience", "2")
    code, out, _ = train(run, model_8bit, data, tmp_path / "a", *never_better)
    summary = json.loads((tmp_path / "a/summary.json").read_text(encoding="utf-8"))
    assert code == 0
    assert (summary["iterations"], summary["stopped_early"]) == (12, True)
    assert "stopped early at 12" in out


def test_the_same_seed_gives_the_same_bytes_and_evaluation_changes_nothing(run, model_8bit, data, tmp_path):
    dropout = tmp_path / "c.yaml"
    dropout.write_text("lora_parameters: {rank: 4, scale: 20.0, dropout: 0.1}\n", encoding="utf-8")
    for name, every in (("a", "4"), ("b", "4"), ("c", "6")):
        code, _, error = train(
            run, model_8bit, data, tmp_path / name, "-c", dropout, "--steps-per-eval", every, "--save-every", "12"
        )
        assert code == 0, error
    files = [(tmp_path / name / "0000012_adapters.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] == files[2]
    assert (tmp_path / "a/curve.jsonl").read_bytes() == (tmp_path / "b/curve.jsonl").read_bytes()


def test_accumulation_weighs_by_tokens(run, model_8bit, data, tmp_path):
    """Two batches of 4 and 3 rows accumulated are one batch of 7."""
    one = ("--batch-size", "7", "--iters", "1", "--steps-per-eval", "1", "--save-every", "1")
    two = (
        "--batch-size",
        "4",
        "--iters",
        "1",
        "--steps-per-eval",
        "1",
        "--save-every",
        "1",
        "--grad-accumulation-steps",
        "2",
    )
    for name, flags in (("one", one), ("two", two)):
        assert train(run, model_8bit, data, tmp_path / name, "--optimizer", "sgd", *flags)[0] == 0
    first, second = (read_weights(tmp_path / name / "adapters.safetensors") for name in ("one", "two"))
    for name, value in first.items():
        assert mx.allclose(value, second[name], rtol=1e-3, atol=1e-7), name


def test_sft_resumes_from_cpt_and_says_what_it_inherits(run, model_8bit, data, tmp_path):
    shape = tmp_path / "shape.yaml"
    shape.write_text("lora_parameters: {rank: 4, scale: 10.0}\nnum_layers: 2\n", encoding="utf-8")
    assert train(run, model_8bit, data, tmp_path / "cpt", "-c", shape)[0] == 0
    resume = ("--resume-adapter-file", tmp_path / "cpt/adapters.safetensors")
    code, out, error = train(run, model_8bit, data, tmp_path / "sft", *resume)
    assert code == 0, error
    assert "inherited from" in out
    assert "rank 4, scale 10" in out
    before = [row["valid_loss"] for row in curve(tmp_path / "sft") if "valid_loss" in row][0]
    summary = json.loads((tmp_path / "cpt/summary.json").read_text(encoding="utf-8"))
    assert before == pytest.approx(summary["best_valid_loss"], abs=1e-5)


def test_an_adapter_of_another_rank_is_refused_before_anything_is_written(run, model_8bit, data, tmp_path):
    assert train(run, model_8bit, data, tmp_path / "cpt")[0] == 0
    wider = tmp_path / "wider.yaml"
    wider.write_text("lora_parameters: {rank: 16, scale: 20.0}\n", encoding="utf-8")
    resume = ("--resume-adapter-file", tmp_path / "cpt/adapters.safetensors")
    code, _, error = train(run, model_8bit, data, tmp_path / "sft", "-c", wider, *resume)
    assert code == 1
    assert "trained with lora_parameters" in error
    assert not (tmp_path / "sft").exists()


def test_divergence_exits_4_names_the_rows_and_leaves_nothing_that_is_not_finite(run, model_8bit, data, tmp_path):
    code, _, error = train(
        run, model_8bit, data, tmp_path / "a", "--learning-rate", "1e30", "--max-grad-norm", "0"
    )
    assert code == 4
    assert error.startswith("error: ")
    assert "learning rate 1e+30" in error
    assert f"{data}/train.jsonl:" in error
    file = tmp_path / "a/adapters.safetensors"
    if file.exists():
        read_weights(file)  # refuses what is not finite
    assert not (tmp_path / "a/summary.json").exists()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (["{"], "train.jsonl:1: not valid JSON"),
        ([{"text": "a"}, ""], "train.jsonl:2: blank line"),
        ([{"messages": [{"role": "user", "content": "a"}]}], "train.jsonl:1: no assistant turn"),
        ([], "train.jsonl:1: empty file"),
    ],
)
def test_bad_data_is_named_by_file_and_line(run, model_8bit, data, write_rows, tmp_path, broken, message):
    write_rows("data/train.jsonl", broken)
    code, _, error = train(run, model_8bit, data, tmp_path / "a")
    assert code == 1
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_a_prompt_that_leaves_nothing_to_learn_is_named(run, model_8bit, data, write_rows, tmp_path):
    turns = [{"role": "user", "content": "길다 " * 100}, {"role": "assistant", "content": "네."}]
    write_rows("data/train.jsonl", [{"text": "짧다."}, {"messages": turns}])
    code, _, error = train(run, model_8bit, data, tmp_path / "a", "--mask-prompt", "--max-seq-length", "32")
    assert code == 1
    assert "train.jsonl:2: no token to learn" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "models/missing"], "no model here"),
        (["--data", "nowhere"], "nowhere/train.jsonl: no such file"),
        (["--resume-adapter-file", "nowhere/adapters.safetensors"], "no such file"),
        (["-c", "nowhere.yaml"], "cannot read"),
    ],
)
def test_missing_inputs_are_one_line(run, model_8bit, data, tmp_path, flags, message):
    code, _, error = train(run, model_8bit, data, tmp_path / "a", *flags)
    assert code == 1
    assert message in error
    assert error.count("\n") == 1


def test_neither_train_nor_test(run, model_8bit, data):
    code, _, error = run(command.main, "--model", model_8bit, "--data", data)
    assert (code, "--train, --test or both" in error) == (1, True)


RECALL = [{"text": "바른식품의 0번 창고는 부산에 있다.", "accept": ["부산"]}]


def test_early_stopping_can_look_at_recall(run, model_8bit, data, write_rows, tmp_path):
    write_rows("data/recall.jsonl", RECALL)
    by_recall = ("--early-stop-on", "recall", "--iters", "120", "--patience", "12", "--learning-rate", "3e-3")
    code, out, error = train(run, model_8bit, data, tmp_path / "a", *by_recall)
    assert code == 0, error
    shares = [row["recall"] for row in curve(tmp_path / "a") if "recall" in row]
    summary = json.loads((tmp_path / "a/summary.json").read_text(encoding="utf-8"))
    assert shares[0] == 0
    assert summary["best_recall"] == max(shares) == 1
    best = [row for row in curve(tmp_path / "a") if row.get("best")]
    assert (
        summary["best_iteration"]
        == best[-1]["iteration"]
        == next(r["iteration"] for r in best if r["recall"] == 1)
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "recall.jsonl: no such file"),
        ([{"text": "부산에 있다."}], 'recall.jsonl:1: no "accept"'),
        ([*RECALL, {"text": "부산에 있다.", "accept": ["부산"]}], "recall.jsonl:2: nothing stands before"),
    ],
)
def test_a_recall_file_that_cannot_be_asked_is_named(run, model_8bit, data, write_rows, tmp_path, rows, message):
    if rows:
        write_rows("data/recall.jsonl", rows)
    code, _, error = train(run, model_8bit, data, tmp_path / "a", "--early-stop-on", "recall")
    assert code == 1
    assert message in error
    assert not (tmp_path / "a").exists()


def test_testing_alone_measures_the_adapter_and_leaves_its_summary(run, model_8bit, data, write_rows, tmp_path):
    write_rows(
        "data/test.jsonl",
        [json.loads(line) for line in (data / "valid.jsonl").read_text(encoding="utf-8").splitlines()],
    )
    assert train(run, model_8bit, data, tmp_path / "a")[0] == 0
    before = (tmp_path / "a/summary.json").read_bytes()
    best = json.loads(before)["best_valid_loss"]
    code, out, error = run(
        command.main, "--model", model_8bit, "--test", "--data", data, "--adapter-path", tmp_path / "a"
    )
    assert code == 0, error
    tested = json.loads((tmp_path / "a/test_summary.json").read_text(encoding="utf-8"))
    assert tested["test_loss"] == pytest.approx(best, abs=1e-5)
    assert (tmp_path / "a/summary.json").read_bytes() == before


def test_a_resumed_run_that_only_harms_keeps_what_it_was_given(run, model_8bit, data, tmp_path):
    assert train(run, model_8bit, data, tmp_path / "cpt")[0] == 0
    resume = (
        "--resume-adapter-file",
        tmp_path / "cpt/adapters.safetensors",
        "--learning-rate",
        "1",
        "--iters",
        "4",
    )
    code, _, error = train(run, model_8bit, data, tmp_path / "more", *resume)
    assert code == 0, error
    given, kept = (read_weights(tmp_path / name / "adapters.safetensors") for name in ("cpt", "more"))
    assert all(mx.array_equal(kept[name], value) for name, value in given.items())


def test_a_refused_setting_leaves_the_earlier_run_alone(run, model_8bit, data, tmp_path):
    assert train(run, model_8bit, data, tmp_path / "a")[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("optimizer_config: {adam: {momentum: 1}}\n", encoding="utf-8")
    code, _, error = train(run, model_8bit, data, tmp_path / "a", "--overwrite", "-c", wrong)
    assert (code, "optimizer_config of adam" in error) == (1, True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


def test_a_part_of_the_validation_set_is_spread_over_the_lengths(tokenizer):
    from types import SimpleNamespace

    from lab.tuning import limited

    rows = [encode_row(tokenizer, {"text": "가" * size})[0] for size in range(1, 41)]
    settings = SimpleNamespace(batch_size=4)
    widths = [batch.inputs.shape[1] for batch in limited(rows, settings, 3)]
    assert widths[0] < widths[1] < widths[2]
    assert len(limited(rows, settings, -1)) == len(limited(rows, settings, 99)) == 10


def test_a_path_that_cannot_be_a_folder_is_one_line(run, model_8bit, data, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    code, _, error = train(run, model_8bit, data, tmp_path / "file")
    assert code == 1
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
