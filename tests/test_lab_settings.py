import json

import pytest

from lab.cli import LabError
from lab.settings import Settings, read_config_file, resolve

BASE = {"model": "m", "data": "d"}


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("iters: 7\nbatch_size: 3\nlearning_rate: 1e-4\n", encoding="utf-8")
    settings, inherited = resolve({**BASE, "config": tmp_path / "c.yaml", "iters": 9})
    assert (settings.iters, settings.batch_size, settings.learning_rate) == (9, 3, 1e-4)
    assert settings.seed == Settings().seed
    assert inherited is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("iters: [1\n", ":2: not valid YAML"), ("itres: 5\n", "unknown settings itres"), ("- 1\n", ":1: expected")],
)
def test_a_bad_config_file_is_named(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LabError) as error:
        read_config_file(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"iters": 0}, "--iters is 0"),
        ({"batch_size": 2.5}, "--batch-size is 2.5"),
        ({"learning_rate": "1e-5x"}, "--learning-rate is '1e-5x'"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"patience": -1}, "--patience is -1"),
        ({"val_batches": 0}, "--val-batches is 0"),
        ({"fine_tune_type": "qlora"}, "'lora', 'dora' or 'full'"),
        ({"report_to": "tensorboard"}, "--report-to is 'tensorboard'"),
        ({"trust_remote_code": True}, "never runs code"),
        ({"data": None}, "no data"),
    ],
)
def test_impossible_values_are_refused(flags, message):
    with pytest.raises(LabError, match=message):
        resolve({**BASE, **flags})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: 'no'\n", "train is 'no'"),
        ("lora_parameters: {rank: -1}\n", "lora_parameters.rank is -1"),
        ("lora_parameters: {alpha: 16}\n", "lora_parameters.alpha is 16"),
        ("lora_parameters:\n", "lora_parameters is None"),
        ("lr_schedule: {name: cosine}\n", "lr_schedule.name is 'cosine'"),
        ("optimizer_config:\n", "optimizer_config is None"),
        ("epochs: two\n", "epochs is 'two'"),
        ("seed: 0.5\n", "seed is 0.5"),
    ],
)
def test_an_impossible_value_in_the_yaml_names_file_and_key(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LabError) as error:
        resolve({**BASE, "config": path})
    assert f"{path}: {message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_config_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "c.yaml").write_bytes("# 설정\n".encode("cp949"))
    with pytest.raises(LabError, match="c.yaml: not UTF-8"):
        read_config_file(tmp_path / "c.yaml")


def test_whole_floats_become_whole_numbers_and_partial_lora_parameters_are_filled(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("iters: 1e3\nlora_parameters: {rank: 4}\n", encoding="utf-8")
    settings, _ = resolve({**BASE, "config": path})
    assert settings.iters == 1000
    assert isinstance(settings.iters, int)
    assert settings.lora_parameters == {"rank": 4, "scale": 20.0, "dropout": 0.0, "keys": None}


def test_a_rate_on_the_command_line_takes_the_place_of_the_files_schedule(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("lr_schedule: {name: cosine_decay, arguments: [1e-4, 100]}\n", encoding="utf-8")
    assert resolve({**BASE, "config": path})[0].lr_schedule["arguments"] == [1e-4, 100]
    assert resolve({**BASE, "config": path, "learning_rate": 1e-5})[0].lr_schedule is None


@pytest.fixture
def earlier(tmp_path):
    config = {
        "fine_tune_type": "lora",
        "num_layers": -1,
        "lora_parameters": {"rank": 4, "scale": 20.0, "dropout": 0.1},
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "adapters.safetensors").write_bytes(b"")
    return tmp_path / "adapters.safetensors"


def test_a_resumed_run_inherits_and_says_so(earlier):
    settings, inherited = resolve({**BASE, "resume_adapter_file": str(earlier)})
    assert settings.lora_parameters["rank"] == 4
    assert settings.num_layers == -1
    assert "rank 4" in inherited


@pytest.mark.parametrize(
    "asked",
    [
        {"lora_parameters": {"rank": 8, "scale": 20.0}},
        {"lora_parameters": {"rank": 4, "scale": 10.0}},
        {"num_layers": 2},
    ],
)
def test_another_shape_than_the_resumed_adapter_is_refused(earlier, asked):
    with pytest.raises(LabError, match="trained with"):
        resolve({**BASE, "resume_adapter_file": str(earlier), **asked})


def test_every_flag_of_mlx_lm_lora_is_there():
    from mlx_lm.lora import build_parser

    import train_with_early_stopping

    theirs = {flag for action in build_parser()._actions for flag in action.option_strings}
    ours = {*train_with_early_stopping.FLAGS, "-c", "--config", "-h", "--help"}
    assert theirs - ours == set()


def test_the_resumed_adapter_is_never_overwritten(earlier):
    with pytest.raises(LabError, match="holds the adapter that is resumed"):
        resolve({**BASE, "resume_adapter_file": str(earlier), "adapter_path": str(earlier.parent)})


@pytest.mark.parametrize("profile", ["tiny", "hcx"])
@pytest.mark.parametrize("stage", ["cpt", "sft"])
def test_the_committed_configs_are_valid(profile, stage):
    settings, _ = resolve({**BASE, "config": f"configs/{profile}/{stage}.yaml"})
    assert settings.iters >= 100
