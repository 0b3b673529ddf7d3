"""Flags of the trainer on real runs of a few updates."""

import json
import shutil

import pytest

import train_with_early_stopping as command
from lab.adapters import read_weights
from lab.device import mx

SHORT = ["--iters", 2, "--batch-size", 2, "--steps-per-eval", 2, "--steps-per-report", 1, "--learning-rate", 1e-3]


@pytest.fixture
def data(write_rows, tmp_path):
    towns = "부산 대구 인천 광주 울산".split()
    rows = [{"prompt": f"{town}에는 무엇이 있어?", "completion": f"{town}에는 창고가 있습니다."} for town in towns]
    rows[1:2] = [{"text": "바른식품의 창고는 대구에 있다."}]
    write_rows("data/train.jsonl", rows)
    write_rows("data/valid.jsonl", rows[:2])
    return tmp_path / "data"


@pytest.fixture
def train(run, model_8bit, data, tmp_path):
    def call(*more, folder="a"):
        return run(
            command.main,
            "--model",
            model_8bit,
            "--train",
            "--data",
            data,
            "--adapter-path",
            tmp_path / folder,
            *SHORT,
            *more,
        )

    return call


def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_rank_alpha_and_modules_make_an_adapter_that_stock_mlx_lm_loads(train, model_8bit, tmp_path):
    flags = ["--rank", 4, "--alpha", 8, "--target-modules", "q_proj,v_proj", "--num-layers", 2, "--dropout", 0.1]
    code, _, error = train(*flags, "--optimizer", "adamw", "--weight-decay", 0.1)
    assert code == 0, error
    names = set(read_weights(tmp_path / "a/adapters.safetensors"))
    places = [f"model.layers.{layer}.self_attn.{key}_proj" for layer in (2, 3) for key in "qv"]
    assert names == {f"{place}.lora_{part}" for place in places for part in "ab"}
    config = json.loads((tmp_path / "a/adapter_config.json").read_text(encoding="utf-8"))
    keys = ["self_attn.q_proj", "self_attn.v_proj"]
    assert config["lora_parameters"] == {"rank": 4, "scale": 2.0, "dropout": 0.1, "keys": keys}
    from mlx_lm import load

    stock, _ = load(str(model_8bit), adapter_path=str(tmp_path / "a"))
    assert mx.all(mx.isfinite(stock(mx.array([[5, 6, 7]])))).item()


def test_the_rates_of_a_named_schedule_are_in_the_curve_and_said(train, tmp_path):
    code, out, error = train("--iters", 4, "--lr-schedule", "linear", "--warmup", 1)
    assert code == 0, error
    rows = [json.loads(line) for line in (tmp_path / "a/curve.jsonl").read_text().splitlines()]
    rates = [row["learning_rate"] for row in rows if "learning_rate" in row]
    assert rates == pytest.approx([5e-4, 1e-3, 2e-3 / 3, 1e-3 / 3])
    assert "1 updates of warm-up to 0.001, then linear to 0; counted in optimizer updates, 4 at most" in out


def test_an_epoch_visits_every_row_once_also_with_accumulation(run, model_8bit, data, tmp_path):
    """5 rows in batches of 1, 2 batches an update: 3 updates, the last of one batch."""
    flags = [
        "--epochs",
        1,
        "--batch-size",
        1,
        "--grad-accumulation-steps",
        2,
        "--mask-prompt",
        "--steps-per-report",
        1,
    ]
    paths = ["--model", model_8bit, "--data", data, "--adapter-path", tmp_path / "a"]
    code, out, error = run(command.main, "--train", *paths, *flags)
    assert code == 0, error
    assert summary(tmp_path / "a")["iterations"] == 3
    said = int(out.partition(" trained tokens an epoch")[0].rpartition(" ")[2])
    rows = [json.loads(line) for line in (tmp_path / "a/curve.jsonl").read_text().splitlines()]
    assert rows[-1]["trained_tokens"] == said
    assert "1.0 epochs at most" in out


def test_memory_is_said_before_the_weights_load_and_refused_where_it_does_not_fit(train, monkeypatch, tmp_path):
    from lab import memory, models

    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("the weights were loaded"))
    monkeypatch.setattr(memory, "available", lambda: 1e6)
    code, _, error = train()
    assert code == 1
    assert error.startswith("error: memory: about ")
    assert error.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_what_is_not_installed_is_said_before_the_weights_load(train, monkeypatch):
    from lab import models, services

    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("the weights were loaded"))
    monkeypatch.setattr(services, "find_spec", lambda name: None)
    code, _, error = train("--report-to", "tensorboard")
    assert code == 1
    assert "--report-to tensorboard: tensorboardX is not installed here" in error


@pytest.mark.parametrize(
    "flags", [["--num-layers", 9], ["--target-modules", "query"], ["--fine-tune-type", "full"]]
)
def test_a_wrong_shape_is_said_before_the_weights_load(train, monkeypatch, flags, tmp_path):
    from lab import models

    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("the weights were loaded"))
    code, _, error = train(*flags)
    assert code == 1
    assert error.startswith("error: ")
    assert not (tmp_path / "a").exists()


def test_a_run_with_one_flag_of_each_kind_reports(train, tmp_path):
    code, out, error = train(
        "--grad-checkpoint", "--fine-tune-type", "dora", "--rank", 2, "--scale", 4, "--seed", 3
    )
    assert code == 0, error
    assert "memory: about 0." in out
    assert "dora, rank 2, scale 4" in out
    assert " GB\n" in out  # the peak, on each training line


def test_a_folder_that_is_no_training_run_is_never_written_into(train, model_8bit, tmp_path):
    """Not a model's, not a data set's, not one with documents: also with --overwrite."""
    shutil.copytree(model_8bit, tmp_path / "model")
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "RESULTS.md").write_text("x", encoding="utf-8")
    before = (tmp_path / "model" / "summary.json").read_bytes()
    for folder in ("model", "documents", "data"):
        names = sorted(path.name for path in (tmp_path / folder).iterdir())
        for more in ((), ("--overwrite",), ("--resume", "--overwrite")):
            code, _, error = train(*more, folder=folder)
            assert code == 1 and "a folder with other things in it" in error and error.count("\n") == 1
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
    assert (tmp_path / "model" / "summary.json").read_bytes() == before
    assert "a file; name a folder" in train(folder="documents/RESULTS.md")[2]


def test_an_adapter_that_is_worse_than_none_is_said_to_be(train):
    assert "warning: the adapter is worse" in train("--learning-rate", 1e3, folder="steep")[1]
    assert "warning: the adapter is worse" not in train(folder="gentle")[1]


def test_what_is_missing_is_named_with_its_own_remedy(train, data, tmp_path):
    assert "nix.jsonl: no such file; check the path" in train("--guard-data", tmp_path / "nix.jsonl")[2]
    assert "a folder; name a JSONL file" in train("--guard-data", data)[2]
    assert "--test needs it" in train("--test")[2]
    assert f"a folder; give {data}/adapters.safetensors" in train("--resume-adapter-file", data)[2]
