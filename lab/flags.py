"""Flags that stand for a nested part of mlx-lm's YAML: --rank for lora_parameters.rank, --weight-decay for optimizer_config.

YAML keeps mlx-lm's own form alone, so that `mlx_lm lora -c` reads the same file.
"""

import math

from lab.cli import LabError

LORA = {"rank": "rank", "scale": "scale", "dropout": "dropout", "target_modules": "keys"}  # flag: key in the YAML
SHORT = (*LORA, "alpha", "weight_decay")  # flags that no setting of the same name stands for
ALL_LINEAR = "all-linear"  # PEFT's word for every linear layer, which is mlx-lm's default
DEFAULT_RANK = 8  # mlx-lm's
DEFAULT_TYPE, DEFAULT_OPTIMIZER = "lora", "adam"


def nest(given, typed):
    """Put the short flags among `typed` where mlx-lm's YAML has them; `typed` loses them.

    `given` are the YAML's settings and is changed. Returns {dotted setting: flag}, for error lines.
    Raises LabError for flags that contradict each other or the rest.
    """
    short = {key: typed.pop(key) for key in SHORT if key in typed}
    asked = {**given, **typed}
    sources = {f"lora_parameters.{LORA[key]}": _flag(key) for key in short if key in LORA}
    if "alpha" in short:
        sources["lora_parameters.scale"] = "--alpha"
    if "weight_decay" in short:
        optimizer = asked.get("optimizer", DEFAULT_OPTIMIZER)
        if optimizer == "adam":
            raise LabError("--weight-decay: adam has none; use --optimizer adamw")
        decay = short.pop("weight_decay")
        if not 0 <= decay < math.inf:
            raise LabError(f"--weight-decay is {decay}: it should be 0 or more, 0.01 say")
        given["optimizer_config"] = _with(given.get("optimizer_config"), optimizer, {"weight_decay": decay})
    if lora := sorted(short):
        if asked.get("fine_tune_type", DEFAULT_TYPE) == "full":
            raise LabError(f"{_flag(lora[0])}: fine_tune_type full has no adapter layers; leave it out")
        given["lora_parameters"] = {**(given.get("lora_parameters") or {}), **_lora(short, asked)}
    return sources


def _with(options, name, added):
    options = options or {}
    return {**options, name: {**(options.get(name) or {}), **added}}


def _lora(short, asked):
    """The keys of lora_parameters that the short flags give."""
    found = {LORA[key]: value for key, value in short.items() if key in LORA}
    if "keys" in found:
        names = [name.strip() for name in found["keys"].split(",") if name.strip()]
        found["keys"] = None if names == [ALL_LINEAR] else names
    if "alpha" in short:
        found["scale"] = _scale_of(short, found, asked)
    return found


def _scale_of(short, found, asked):
    """PEFT's alpha as mlx-lm's scale: alpha / rank."""
    if "scale" in short:
        raise LabError("--alpha and --scale: the scale is alpha / rank; give one of them")
    if asked.get("resume_adapter_file"):
        raise LabError("--alpha: the adapter that is resumed keeps its scale; leave it out")
    rank = found.get("rank", (asked.get("lora_parameters") or {}).get("rank", DEFAULT_RANK))
    return short["alpha"] / rank if isinstance(rank, int) and rank > 0 else short["alpha"]


def one_length(given, typed, yaml_path):
    """Leave one of iters and epochs: what is typed wins over the YAML file. Raises LabError for both in one place."""
    both = {"iters", "epochs"}
    if both <= typed.keys():
        raise LabError("--iters and --epochs: both say how long to train; give one")
    if both <= given.keys() and not both & typed.keys():
        raise LabError(f"{yaml_path}: iters and epochs both say how long to train; keep one")
    for key in both & typed.keys():
        given.pop(*(both - {key}), None)


def refuse_unused_rates(asked):
    """Raise LabError for a part of a schedule that the chosen schedule does not read: it would do nothing in silence."""
    chosen = asked.get("lr_schedule")
    if isinstance(chosen, dict):
        unread, why = ("warmup", "final_learning_rate", "decay_rate", "decay_every"), "has its own arguments"
    else:
        unread = {"final_learning_rate"} - ({"final_learning_rate"} if chosen in ("linear", "cosine") else set())
        unread |= {"decay_rate", "decay_every"} if chosen != "step" else set()
        why = "does not use it"
    if found := sorted(key for key in unread if asked.get(key) is not None):
        name = chosen["name"] if isinstance(chosen, dict) and "name" in chosen else chosen or "constant"
        raise LabError(
            f"{_flag(found[0])}: lr_schedule {name} {why}; leave it out or choose another --lr-schedule"
        )


def _flag(key):
    return f"--{key.replace('_', '-')}"
