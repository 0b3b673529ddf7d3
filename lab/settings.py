"""A training run's settings: mlx-lm's own names and defaults, then the YAML file, then the flags.

Differences from mlx-lm's defaults, each on purpose: the whole validation set (val_batches -1) every 50 updates, patience 5,
bias-corrected Adam, gradients clipped at norm 1, all layers (num_layers -1), no numbered copies (save_every 0).
"""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, ValidationError

from lab.adapters import SHAPING, describe, read_config
from lab.cli import LabError

Whole = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Layers = Annotated[int, Field(ge=-1)]
Batches = Annotated[int, Field(ge=-1), AfterValidator(lambda number: number or _no_batches())]


def _no_batches():
    raise ValueError("no batches measure nothing; -1 takes all")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LoraParameters(_Strict):
    """mlx-lm's lora_parameters: `scale` multiplies the product of the two low-rank matrices."""

    rank: Whole = 8
    scale: Annotated[float, Field(allow_inf_nan=False)] = 20.0
    dropout: Share = 0.0
    keys: list[str] | None = None


class LrSchedule(_Strict):
    """mlx-lm's lr_schedule: a schedule of mlx.optimizers with its arguments, counted in optimizer updates."""

    name: Literal["cosine_decay", "exponential_decay", "linear_schedule", "step_decay"]
    arguments: list[float]
    warmup: Annotated[int, Field(ge=0)] = 0
    warmup_init: NotNegative = 0.0


class Settings(_Strict):
    """Every setting of a run with its default."""

    model: str = ""
    train: StrictBool = False
    fine_tune_type: Literal["lora", "dora", "full"] = "lora"
    optimizer: Literal["adam", "adamw", "muon", "sgd", "adafactor"] = "adam"
    optimizer_config: dict[str, dict[str, Any]] = {}
    data: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    num_layers: Layers = -1
    batch_size: Whole = 4
    iters: Whole = 1000
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    val_batches: Batches = -1
    learning_rate: NotNegative = 1e-5
    steps_per_report: Whole = 10
    steps_per_eval: Whole = 50
    resume_adapter_file: str | None = None
    adapter_path: str = "adapters"
    save_every: Annotated[int, Field(ge=0)] = 0
    test: StrictBool = False
    test_batches: Batches = -1
    max_seq_length: Whole = 2048
    config: str | None = None
    grad_checkpoint: StrictBool = False
    grad_accumulation_steps: Whole = 1
    clear_cache_threshold: Annotated[int, Field(ge=0)] = 0
    lr_schedule: LrSchedule | None = None
    lora_parameters: LoraParameters = LoraParameters()
    mask_prompt: StrictBool = False
    report_to: Literal["wandb", "swanlab", "wandb,swanlab", "swanlab,wandb"] | None = None
    project_name: str | None = None
    trust_remote_code: StrictBool = False
    patience: Annotated[int, Field(ge=0)] = 5
    min_delta: NotNegative = 0.0
    early_stop_on: Literal["loss", "recall"] = "loss"
    max_grad_norm: NotNegative = 1.0
    guard_data: str | None = None
    max_forgetting: NotNegative | None = None
    guard_action: Literal["stop", "restore"] = "stop"
    resume: StrictBool = False
    overwrite: StrictBool = False
    keep_last: Whole = 2
    output: str | None = None


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
    except UnicodeDecodeError as error:
        raise LabError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise LabError(f"{path}:{line}: not valid YAML; mend the line") from error
    if not isinstance(content, dict):
        raise LabError(f"{path}:1: expected `key: value` lines")
    known = Settings.model_fields
    if unknown := sorted(content.keys() - known.keys()):
        raise LabError(f"{path}: unknown settings {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return content


def resolve(flags):
    """Settings from parsed flags (a dict; None means not given): defaults < inherited adapter < YAML < flags.

    Returns (settings, inherited): a namespace, and a line that says what came from the resumed adapter, or None.
    Raises LabError for values that cannot be, and for a shape that differs from the adapter that is resumed.
    """
    yaml_path = flags.get("config")
    given = read_config_file(yaml_path) if yaml_path else {}
    typed = {
        key: str(value) if isinstance(value, Path) else value for key, value in flags.items() if value is not None
    }
    if "learning_rate" in typed:
        given.pop("lr_schedule", None)  # a rate on the command line takes the place of the file's schedule
    given |= typed
    try:
        settings = SimpleNamespace(**Settings.model_validate(given).model_dump())
    except ValidationError as error:
        raise LabError(_fault(error.errors()[0], typed, yaml_path)) from error
    if settings.trust_remote_code:
        raise LabError(
            "--trust-remote-code: this lab never runs code that comes with a model; convert the model instead"
        )
    for key in ("model", "data"):
        if not getattr(settings, key):
            raise LabError(f"no {key}; give --{key} or put `{key}:` into the YAML file")
    inherited = _inherit(settings, given) if settings.resume_adapter_file else None
    return settings, inherited


def _fault(error, typed, yaml_path):
    """A pydantic error as one line that says where the value came from."""
    name = ".".join(str(part) for part in error["loc"])
    key = str(error["loc"][0])
    source = f"--{key.replace('_', '-')}" if key in typed else f"{yaml_path}: {name}"
    return f"{source} is {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}; see train_with_early_stopping.py --help"


def _inherit(settings, given):
    """Take the shape of the resumed adapter over into `settings`; returns the line that says so."""
    file = Path(settings.resume_adapter_file)
    if not file.is_file():
        raise LabError(f"{file}: no such file; train that stage first (`make cpt`) or mend --resume-adapter-file")
    if file.parent.resolve() == Path(settings.adapter_path).resolve():
        raise LabError(
            f"--adapter-path {settings.adapter_path}: holds the adapter that is resumed; name another folder"
        )
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
    for key in SHAPING:
        setattr(settings, key, earlier.get(key))
    if dropout is not None and settings.lora_parameters:
        settings.lora_parameters = {**settings.lora_parameters, "dropout": dropout}
    return f"inherited from {file}: {describe(vars(settings))}"
