"""What decides a run's bytes, and what does not."""

from types import SimpleNamespace

import pytest

from lab import fingerprint
from lab.settings import Settings


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "chat_template.jinja", "summary.json", "README.md"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def found(model, tmp_path):
    """A function that gives the fingerprint of settings; `changes` are settings."""
    (tmp_path / "train.jsonl").write_text("{}")

    def of(**changes):
        settings = SimpleNamespace(**{**Settings().model_dump(), "model": str(model), **changes})
        return fingerprint.fingerprint(settings, {"train": tmp_path / "train.jsonl"})

    return of


def test_names_that_are_left_out_are_settings():
    assert Settings.model_fields.keys() >= fingerprint.FREE


@pytest.mark.parametrize(
    "name", ["adapter_path", "data", "output", "keep_last", "save_every", "report_to", "resume"]
)
def test_where_a_run_lies_does_not_matter(found, name):
    assert found(**{name: "other"}) == found()


@pytest.mark.parametrize("name", ["seed", "iters", "batch_size", "lora_parameters", "max_forgetting", "patience"])
def test_what_is_learnt_and_when_it_ends_matters(found, name):
    changed = found(**{name: 77})
    assert fingerprint.identity(changed) != fingerprint.identity(found())
    assert [line.partition(":")[0] for line in fingerprint.differences(found(), changed)] == [f"setting {name}"]


def test_every_file_of_the_model_counts_but_its_summary(found, model):
    before = found()
    (model / "summary.json").write_text("new")
    (model / "README.md").write_text("new")
    assert found() == before
    (model / "chat_template.jinja").write_text("new")
    (model / "generation_config.json").write_text("new")
    lines = fingerprint.differences(before, found())
    assert lines[0].startswith("model chat_template.jinja: ")
    assert lines[1].startswith("model generation_config.json: none -> ")
    assert all(len(line) < 70 for line in lines)


def test_a_file_of_rows_counts(found, tmp_path):
    before = found()
    (tmp_path / "train.jsonl").write_text("{} ")
    assert [line.partition(":")[0] for line in fingerprint.differences(before, found())] == ["file train"]


def test_large_weights_are_sampled_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(fingerprint, "SAMPLE_BYTES", 10)
    path = tmp_path / "large.safetensors"
    raw = bytearray(100_000)
    path.write_bytes(raw)
    before = fingerprint.sampled_sha256(path)
    middle = 31 * (len(raw) - 10) // 63  # where the 32nd of 64 pieces begins
    for place in (0, 9, middle, len(raw) - 1):
        changed = bytearray(raw)
        changed[place] = 1
        path.write_bytes(changed)
        assert fingerprint.sampled_sha256(path) != before
    path.write_bytes(raw + b"\0")
    assert fingerprint.sampled_sha256(path) != before
