import json

import pytest

from lab.cli import LabError
from lab.config_files import read_config_file
from lab.settings import Settings, resolve

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
        read_config_file(path, Settings.model_fields)
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
        ({"report_to": "mlflow"}, "--report-to is 'mlflow': no service 'mlflow'; use tensorboard, wandb, swanlab"),
        ({"lr_schedule": "cosin"}, "--lr-schedule is 'cosin'"),
        ({"warmup": -1}, "--warmup is -1"),
        ({"rank": 0}, "--rank is 0"),
        ({"dropout": 1.0}, "--dropout is 1.0"),
        ({"alpha": float("nan")}, "--alpha is nan"),
        ({"alpha": 16, "scale": 2.0}, "give one of them"),
        ({"weight_decay": 0.1}, "use --optimizer adamw"),
        ({"weight_decay": float("nan"), "optimizer": "adamw"}, "--weight-decay is nan"),
        ({"rank": 4, "fine_tune_type": "full"}, "--rank: fine_tune_type full"),
        ({"target_modules": " , "}, "--target-modules is"),
        ({"iters": 3, "epochs": 1.0}, "--iters and --epochs"),
        ({"final_learning_rate": 1e-6}, "--final-learning-rate: lr_schedule constant does not use it"),
        ({"decay_every": 5, "lr_schedule": "cosine"}, "--decay-every: lr_schedule cosine does not use it"),
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
        ("lr_schedule: {name: cosine_decay, arguments: [1e-4]}\n", "lr_schedule is"),
        ("lr_schedule: {name: step_decay, arguments: [1e-4, 0.1, 0]}\n", "lr_schedule is"),
        ("lr_schedule: 5\n", "lr_schedule is 5"),
        ("iters: 5\nepochs: 2\n", "iters and epochs both"),
        ("rank: 4\n", "rank is a flag; in YAML it stands in lora_parameters"),
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
        read_config_file(tmp_path / "c.yaml", Settings.model_fields)


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


def test_short_flags_stand_for_parts_of_mlx_lms_yaml(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "lora_parameters: {rank: 4, dropout: 0.1}\noptimizer_config: {adamw: {eps: 1e-6}}\n", encoding="utf-8"
    )
    flags = {"rank": 16, "alpha": 32.0, "target_modules": "q_proj, self_attn.v_proj", "weight_decay": 0.1}
    settings, _ = resolve({**BASE, "config": path, "optimizer": "adamw", **flags})
    keys = ["q_proj", "self_attn.v_proj"]
    assert settings.lora_parameters == {"rank": 16, "scale": 2.0, "dropout": 0.1, "keys": keys}
    assert settings.optimizer_config == {"adamw": {"eps": 1e-6, "weight_decay": 0.1}}
    assert not hasattr(settings, "rank")


def test_alpha_is_over_the_rank_that_is_used(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("lora_parameters: {rank: 4}\n", encoding="utf-8")
    assert resolve({**BASE, "config": path, "alpha": 8.0})[0].lora_parameters["scale"] == 2.0
    assert resolve({**BASE, "alpha": 8.0})[0].lora_parameters["scale"] == 1.0


def test_all_linear_is_every_layer():
    assert resolve({**BASE, "target_modules": "all-linear"})[0].lora_parameters["keys"] is None


@pytest.mark.parametrize(("name", "other", "value"), [("epochs", "iters", 2.0), ("iters", "epochs", 7)])
def test_a_length_on_the_command_line_takes_the_place_of_the_files(tmp_path, name, other, value):
    path = tmp_path / "c.yaml"
    path.write_text(f"{other}: 3\n", encoding="utf-8")
    settings, _ = resolve({**BASE, "config": path, name: value})
    assert getattr(settings, name) == value
    assert getattr(settings, other) == getattr(Settings(), other)


def test_a_named_schedule_keeps_the_rate_on_the_command_line_as_its_peak(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("lr_schedule: cosine\nwarmup: 5\n", encoding="utf-8")
    settings, _ = resolve({**BASE, "config": path, "learning_rate": 1e-3})
    assert (settings.lr_schedule, settings.warmup, settings.learning_rate) == ("cosine", 5, 1e-3)


def test_a_named_schedule_takes_the_place_of_the_files(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("lr_schedule: {name: cosine_decay, arguments: [1e-4, 100], warmup: 3}\n", encoding="utf-8")
    assert resolve({**BASE, "config": path, "lr_schedule": "linear", "warmup": 5})[0].lr_schedule == "linear"
    with pytest.raises(LabError, match="--warmup: lr_schedule cosine_decay has its own arguments"):
        resolve({**BASE, "config": path, "warmup": 5})


def test_a_resumed_run_may_name_the_modules_short(tmp_path, earlier):
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    config["lora_parameters"]["keys"] = ["self_attn.q_proj", "self_attn.v_proj"]
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    asked = {**BASE, "resume_adapter_file": str(earlier), "rank": 4, "scale": 20.0}
    settings, _ = resolve({**asked, "target_modules": "v_proj,q_proj"})
    assert settings.lora_parameters["keys"] == ["self_attn.q_proj", "self_attn.v_proj"]
    for other in ("q_proj", "q_proj,v_proj,o_proj"):
        with pytest.raises(LabError, match="trained with"):
            resolve({**asked, "target_modules": other})


def test_alpha_is_refused_where_the_scale_is_inherited(earlier):
    with pytest.raises(LabError, match="keeps its scale"):
        resolve({**BASE, "resume_adapter_file": str(earlier), "alpha": 8.0})


def test_the_defaults_that_the_help_names_are_the_defaults():
    import re

    import train_with_early_stopping

    said = {}
    for flag, (_, text) in train_with_early_stopping.FLAGS.items():
        if found := re.search(r"\((-?\d[\d.e-]*)[^()]*\)$", text):
            said[flag.removeprefix("--").replace("-", "_")] = float(found[1])
    lora = Settings().model_dump()["lora_parameters"]
    known = {**Settings().model_dump(), **lora}
    assert len(said) > 15
    assert said == {key: float(known[key]) for key in said}
