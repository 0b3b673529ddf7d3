"""The builder of the embedded model, run for a few steps: what it writes, what it refuses to overwrite."""

import json

import pytest

import convert_hyperclova
import make_tiny_model

FILES = {
    *("chat_template.jinja", "config.json", "generation_config.json", "model.safetensors.index.json"),
    *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    *("summary.json", "tokenizer.json", "tokenizer_config.json"),
}


def test_a_few_steps_build_a_whole_checkpoint(run, tmp_path):
    target, output = tmp_path / "models/tiny", tmp_path / "summary.json"
    flags = ("--steps", "2", "--batch-size", "2", "--mlx-path", target)
    code, out, error = run(make_tiny_model.main, *flags, "--output", output)
    assert code == 0, error
    assert f"built {target} in " in out
    assert {path.name for path in target.iterdir()} == FILES
    assert [path.name for path in target.parent.iterdir()] == ["tiny"]
    assert output.read_bytes() == (target / "summary.json").read_bytes()
    summary = json.loads(output.read_text(encoding="utf-8"))
    assert list(summary["inputs"]) == ["data_general"]
    assert [point["step"] for point in summary["curve"]] == [2]
    code, _, error = run(convert_hyperclova.main, "--hf-path", target, "--mlx-path", tmp_path / "8bit")
    assert code == 0, error
    code, _, error = run(make_tiny_model.main, *flags)
    assert code == 1
    assert f"{target}: exists; --force overwrites it" in error


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_folder_with_other_things_stays(run, tmp_path, force):
    (tmp_path / "models/other").mkdir(parents=True)
    (tmp_path / "models/other/notes.txt").write_text("mine", encoding="utf-8")
    flags = ("--steps", "1", "--batch-size", "1", "--mlx-path", tmp_path / "models", *force)
    code, _, error = run(make_tiny_model.main, *flags)
    assert (code, error.count("\n")) == (1, 1)
    assert f"{tmp_path / 'models'}: a folder with other things in it" in error
    assert (tmp_path / "models/other/notes.txt").read_text(encoding="utf-8") == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_the_data_is_not_overwritten(run, tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "data").mkdir()
    code, _, error = run(make_tiny_model.main, "--data", tmp_path / "data", "--mlx-path", tmp_path, "--force")
    assert code == 1
    assert "is, holds or lies in the source" in error
    assert (tmp_path / "data").is_dir()
