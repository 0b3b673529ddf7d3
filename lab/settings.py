"""A training run's settings: mlx-lm's own names and defaults, then the YAML file, then the flags.

Differences from mlx-lm's defaults, each on purpose: the whole validation set (val_batches -1), bias-corrected Adam,
gradients clipped at norm 1, all layers (num_layers -1).
"""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import yaml

from lab.adapters import SHAPING, describe, read_config
from lab.cli import LabError

DEFAULTS = {
    "model": None,
    "train": False,
    "fine_tune_type": "lora",
    "optimizer": "adam",
    "optimizer_config": {},
    "data": None,
    "seed": 0,
    "num_layers": -1,
    "batch_size": 4,
    "iters": 1000,
    "epochs": None,
    "val_batches": -1,
    "learning_rate": 1e-5,
    "steps_per_report": 10,
    "steps_per_eval": 200,
    "resume_adapter_file": None,
    "adapter_path": "adapters",
    "save_every": 0,
    "test": False,
    "test_batches": -1,
    "max_seq_length": 2048,
    "config": None,
    "grad_checkpoint": False,
    "grad_accumulation_steps": 1,
    "clear_cache_threshold": 0,
    "lr_schedule": None,
    "lora_parameters": {"rank": 8, "dropout": 0.0, "scale": 20.0},
    "mask_prompt": False,
    "report_to": None,
    "project_name": None,
    "trust_remote_code": False,
    "patience": 0,
    "min_delta": 0.0,
    "early_stop_on": "loss",
    "max_grad_norm": 1.0,
    "output": None,
}
POSITIVE = (
    "batch_size",
    "iters",
    "steps_per_report",
    "steps_per_eval",
    "max_seq_length",
    "grad_accumulation_steps",
)
NUMBERS = (
    *POSITIVE,
    "seed",
    "num_layers",
    "learning_rate",
    "save_every",
    "patience",
    "min_delta",
    "max_grad_norm",
)


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-5 is a number, as in mlx-lm's loader; plain YAML 1.1 reads it as a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_config_file(path):
    """The settings of a YAML file. Raises LabError for a missing file, bad YAML or a key that no setting has."""
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except OSError as error:
        raise LabError(f"{path}: cannot read ({error.strerror}); see configs/ for the files there are") from error
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise LabError(f"{path}:{line}: not valid YAML; mend the line") from error
    if not isinstance(content, dict):
        raise LabError(f"{path}:1: expected `key: value` lines")
    if unknown := sorted(content.keys() - DEFAULTS.keys()):
        raise LabError(f"{path}: unknown settings {', '.join(unknown)}; known: {', '.join(sorted(DEFAULTS))}")
    return content


def resolve(flags):
    """Settings from parsed flags (a dict; None means not given): defaults < inherited adapter < YAML < flags.

    Returns (settings, inherited): a namespace, and a line that says what came from the resumed adapter, or None.
    Raises LabError for values that cannot be, and for a shape that differs from the adapter that is resumed.
    """
    given = {}
    if flags.get("config"):
        given |= read_config_file(flags["config"])
    given |= {key: value for key, value in flags.items() if value is not None}
    settings = {**DEFAULTS, **given}
    inherited = None
    if settings["resume_adapter_file"]:
        inherited = _inherit(settings, given)
    _check(settings)
    return SimpleNamespace(**settings), inherited


def _inherit(settings, given):
    file = Path(settings["resume_adapter_file"])
    if not file.is_file():
        raise LabError(f"{file}: no such file; train that stage first (`make cpt`) or mend --resume-adapter-file")
    earlier = read_config(file.parent)
    for key in SHAPING:
        mine, theirs = given.get(key), earlier.get(key)
        if key == "lora_parameters" and mine is not None and theirs is not None:
            mine = {name: value for name, value in mine.items() if name != "dropout"}
            theirs = {name: theirs.get(name) for name in mine}
        if mine is not None and mine != theirs:
            raise LabError(
                f"{file}: trained with {key} {theirs}, this run asks for {mine}; "
                f"leave {key} out to inherit it, or train the earlier stage again"
            )
    dropout = (given.get("lora_parameters") or {}).get("dropout")
    settings.update({key: earlier.get(key) for key in SHAPING})
    if dropout is not None and settings["lora_parameters"]:
        settings["lora_parameters"] = {**settings["lora_parameters"], "dropout": dropout}
    return f"inherited from {file}: {describe(settings)}"


def _check(settings):
    for key in NUMBERS:
        value = settings[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise LabError(f"{key} is {value!r}; it must be a number")
    for key in POSITIVE:
        if settings[key] < 1 or settings[key] != int(settings[key]):
            raise LabError(f"{key} is {settings[key]}; it must be a whole number, 1 or more")
    for key in ("patience", "min_delta", "save_every", "learning_rate", "max_grad_norm"):
        if settings[key] < 0:
            raise LabError(f"{key} is {settings[key]}; it must not be negative")
    if settings["fine_tune_type"] not in ("lora", "dora", "full"):
        raise LabError(f"fine_tune_type is {settings['fine_tune_type']!r}; use lora, dora or full")
    if settings["early_stop_on"] not in ("loss", "recall"):
        raise LabError(f"early_stop_on is {settings['early_stop_on']!r}; use loss or recall")
    for key in ("model", "data"):
        if not settings[key]:
            raise LabError(f"no {key}; give --{key} or put `{key}:` into the YAML file")
    if settings["trust_remote_code"]:
        raise LabError(
            "--trust-remote-code: this lab never runs code that comes with a model; convert the model instead"
        )
