"""A training run's settings: mlx-lm's own names and defaults, then the YAML file, then the flags.

Differences from mlx-lm's defaults, each on purpose: the whole validation set (val_batches -1) every 50 updates, patience 5,
bias-corrected Adam, gradients clipped at norm 1, all layers (num_layers -1), no numbered copies (save_every 0).
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    Tag,
    ValidationError,
    model_validator,
)

from lab import flags as short_flags
from lab.adapters import SHAPING, describe, read_config
from lab.cli import LabError
from lab.config_files import read_config_file

Whole = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Layers = Annotated[int, Field(ge=-1)]
Batches = Annotated[int, Field(ge=-1), AfterValidator(lambda number: number or _no_batches())]


SCHEDULES = {  # mlx.optimizers' schedules: how many arguments each takes
    "cosine_decay": (2, 3),
    "exponential_decay": (2, 2),
    "linear_schedule": (3, 3),
    "step_decay": (3, 3),
}
SERVICES = ("tensorboard", "wandb", "swanlab")


def _no_batches():
    raise ValueError("no batches measure nothing; -1 takes all")


def _services(value):
    names = [name.strip() for name in value.split(",")]
    if unknown := [name for name in names if name not in SERVICES]:
        raise ValueError(f"no service {unknown[0]!r}; use {', '.join(SERVICES)}, several with commas")
    return ",".join(dict.fromkeys(names))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LoraParameters(_Strict):
    """mlx-lm's lora_parameters: `scale` multiplies the product of the two low-rank matrices."""

    rank: Whole = 8
    scale: Annotated[float, Field(allow_inf_nan=False)] = 20.0
    dropout: Share = 0.0
    keys: Annotated[list[str], Field(min_length=1)] | None = None


class LrSchedule(_Strict):
    """mlx-lm's lr_schedule: a schedule of mlx.optimizers with its arguments, counted in optimizer updates."""

    name: Literal["cosine_decay", "exponential_decay", "linear_schedule", "step_decay"]
    arguments: list[Annotated[float, Field(allow_inf_nan=False)]]
    warmup: Count = 0
    warmup_init: NotNegative = 0.0

    @model_validator(mode="after")
    def _right_number(self):
        fewest, most = SCHEDULES[self.name]
        if not fewest <= len(self.arguments) <= most:
            raise ValueError(f"{self.name} takes {fewest} to {most} arguments")
        if (
            self.name == "step_decay"
            and self.arguments[2] < 1
            or self.name == "cosine_decay"
            and self.arguments[1] <= 0
        ):
            raise ValueError(f"{self.name} needs 1 update or more")
        return self


NAMED, MLX_LM = "<named>", "<mlx-lm>"  # the two forms of lr_schedule, as error lines leave them out
Schedule = Annotated[
    Annotated[Literal["constant", "linear", "cosine", "step"], Tag(NAMED)] | Annotated[LrSchedule, Tag(MLX_LM)],
    Discriminator(lambda value: NAMED if isinstance(value, str) else MLX_LM),
]


class Settings(_Strict):
    """Every setting of a run with its default."""

    model: str = ""
    train: StrictBool = False
    fine_tune_type: Literal["lora", "dora", "full"] = "lora"
    optimizer: Literal["adam", "adamw", "muon", "sgd", "adafactor"] = "adam"
    optimizer_config: dict[str, dict[str, Any]] = {}
    data: str = ""
    seed: Count = 0
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
    save_every: Count = 0
    test: StrictBool = False
    test_batches: Batches = -1
    max_seq_length: Whole = 2048
    config: str | None = None
    grad_checkpoint: StrictBool = False
    grad_accumulation_steps: Whole = 1
    clear_cache_threshold: Count = 0
    lr_schedule: Schedule | None = None
    warmup: Count = 0
    final_learning_rate: NotNegative = 0.0
    decay_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    decay_every: Whole | None = None
    lora_parameters: LoraParameters = LoraParameters()
    mask_prompt: StrictBool = False
    report_to: Annotated[str, AfterValidator(_services)] | None = None
    project_name: str | None = None
    trust_remote_code: StrictBool = False
    patience: Count = 5
    min_delta: NotNegative = 0.0
    early_stop_on: Literal["loss", "recall"] = "loss"
    max_grad_norm: NotNegative = 1.0
    guard_data: str | None = None
    max_forgetting: NotNegative | None = None
    guard_action: Literal["stop", "restore"] = "stop"
    resume: StrictBool = False
    overwrite: StrictBool = False
    keep_last: Whole = 2
    memory_check: Literal["refuse", "warn"] = "refuse"
    output: str | None = None


def resolve(flags):
    """Settings from parsed flags (a dict; None means not given): defaults < inherited adapter < YAML < flags.

    Returns (settings, inherited): a namespace, and a line that says what came from the resumed adapter, or None.
    Raises LabError for values that cannot be, and for a shape that differs from the adapter that is resumed.
    """
    yaml_path = flags.get("config")
    given = read_config_file(yaml_path, Settings.model_fields) if yaml_path else {}
    typed = {
        key: str(value) if isinstance(value, Path) else value for key, value in flags.items() if value is not None
    }
    if "learning_rate" in typed and isinstance(given.get("lr_schedule"), dict):
        del given["lr_schedule"]  # it has a rate of its own, whose place the rate on the command line takes
    sources = short_flags.nest(given, typed)
    short_flags.one_length(given, typed, yaml_path)
    given |= typed
    short_flags.refuse_unused_rates(given)
    try:
        settings = SimpleNamespace(**Settings.model_validate(given).model_dump())
    except ValidationError as error:
        raise LabError(_fault(error.errors()[0], typed, sources, yaml_path)) from error
    if settings.trust_remote_code:
        raise LabError(
            "--trust-remote-code: this lab never runs code that comes with a model; convert the model instead"
        )
    for key in ("model", "data"):
        if not getattr(settings, key):
            raise LabError(f"no {key}; give --{key} or put `{key}:` into the YAML file")
    inherited = _inherit(settings, given) if settings.resume_adapter_file else None
    return settings, inherited


def _fault(error, typed, sources, yaml_path):
    """A pydantic error as one line that says where the value came from."""
    place = [str(part) for part in error["loc"] if part not in (NAMED, MLX_LM)]
    name = ".".join(place)
    flag = sources.get(name) or (f"--{place[0].replace('_', '-')}" if place[0] in typed else None)
    what = error["msg"].removeprefix("Value error, ")
    if name == "lora_parameters.alpha":
        what = "mlx-lm's YAML has `scale` instead, which is alpha / rank"
    return f"{flag or f'{yaml_path}: {name}'} is {error['input']!r}: {what[0].lower()}{what[1:]}; see train_with_early_stopping.py --help"


def _inherit(settings, given):
    """Take the shape of the resumed adapter over into `settings`; returns the line that says so."""
    file = Path(settings.resume_adapter_file)
    if file.is_dir():
        raise LabError(f"--resume-adapter-file {file}: a folder; give {file / 'adapters.safetensors'}")
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
            mine = {**mine, **({"keys": theirs["keys"]} if _same_modules(mine, theirs) else {})}
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


def _same_modules(mine, theirs):
    """Whether the module names asked for, long or short, are those of the adapter that is resumed."""
    short, full = mine.get("keys"), theirs.get("keys")
    if not short or not full:
        return False
    matches = [[name for name in full if f".{name}".endswith(f".{part}")] for part in short]
    return all(matches) and {name for found in matches for name in found} == set(full)
