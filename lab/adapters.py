"""Adapters in mlx-lm's own form: save whole, check before use, load all or nothing.

A folder holds adapter_config.json and adapters.safetensors. mlx-lm accepts a file that lacks half of the tensors, or has
another rank, in silence; nothing here does.
"""

import json
from pathlib import Path

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.dora import DoRAEmbedding, DoRALinear
from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers

from lab.cli import LabError, read_json, write_atomically, write_json

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
WRAPPERS = {LoRALinear: "linear", DoRALinear: "linear", LoRAEmbedding: "embedding", DoRAEmbedding: "embedding"}
SHAPING = (
    "fine_tune_type",
    "num_layers",
    "lora_parameters",
)  # what decides an adapter's tensors and their meaning


def read_config(folder):
    """The adapter_config.json of `folder`, with mlx-lm's defaults filled in. Raises LabError when it is unusable."""
    path = Path(folder) / CONFIG
    config = read_json(path, "name the folder that a training run wrote")
    config.setdefault("fine_tune_type", "lora")
    if config["fine_tune_type"] != "full":
        problems = [key for key in SHAPING if key not in config]
        wanted = ("rank", "scale")
        problems += [
            f"lora_parameters.{key}" for key in wanted if key not in (config.get("lora_parameters") or {})
        ]
        if problems:
            raise LabError(f"{path}: no {', '.join(problems)}; train the adapter again or copy its own config")
        config["lora_parameters"].setdefault("dropout", 0.0)
    return config


def read_weights(file):
    """The tensors of an adapter file as {name: array}, every value finite. Raises LabError when it is unusable."""
    file = Path(file)
    if not file.is_file():
        raise LabError(f"{file}: no such file; train the adapter first (make cpt, make sft) or mend the path")
    try:
        tensors = mx.load(str(file))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(f"{file}: not a whole safetensors file ({reason}); train the adapter again") from error
    if bad := [name for name, value in tensors.items() if not mx.all(mx.isfinite(value)).item()]:
        raise LabError(f"{file}: not finite: {'; '.join(sorted(bad))}; the run that wrote it had diverged")
    return tensors


def add_layers(model, config):
    """Freeze `model` and give it the trainable parts that an adapter config describes."""
    model.freeze()
    if config["num_layers"] > len(model.layers):
        raise LabError(
            f"num_layers {config['num_layers']}: the model has {len(model.layers)}; use at most that, or -1"
        )
    if config["fine_tune_type"] == "full":
        if any(name.endswith(".scales") for name, _ in tree_flatten(model.parameters())):
            raise LabError("--fine-tune-type full: the model is quantized; convert it with --no-quantize first")
        for layer in model.layers[-max(config["num_layers"], 0) :]:
            layer.unfreeze()
        return
    use_dora = config["fine_tune_type"] == "dora"
    linear_to_lora_layers(model, config["num_layers"], config["lora_parameters"], use_dora=use_dora)
    if not tree_flatten(model.trainable_parameters()):
        keys = config["lora_parameters"].get("keys")
        raise LabError(f"lora_parameters.keys {keys}: no layer of this model has such a name; see `make doctor`")


def load_weights(model, file):
    """Put the tensors of an adapter file into the trainable parameters of `model`: all of them, or none and a LabError.

    Every missing, unexpected or mis-shaped tensor is listed.
    """
    tensors, expected = read_weights(file), dict(tree_flatten(model.trainable_parameters()))
    problems = [f"{name}: missing" for name in sorted(expected.keys() - tensors.keys())]
    problems += [
        f"{name}: not a part of this model's adapter" for name in sorted(tensors.keys() - expected.keys())
    ]
    for name in sorted(tensors.keys() & expected.keys()):
        found, wanted = tuple(tensors[name].shape), tuple(expected[name].shape)
        if found != wanted:
            problems.append(f"{name}: shape {found}, this model and rank need {wanted}")
    if problems:
        raise LabError(f"{file}: does not fit ({len(problems)} tensors): {'; '.join(problems)}")
    model.load_weights(list(tensors.items()), strict=False)


def apply(model, folder):
    """Put the adapter of `folder` on a bare model, checked."""
    add_layers(model, read_config(folder))
    load_weights(model, Path(folder) / WEIGHTS)
    model.eval()


def remove(model):
    """Take every LoRA or DoRA layer off `model`, so that it is the base again."""
    bare = []
    for name, module in model.named_modules():
        if inner := WRAPPERS.get(type(module)):
            bare.append((name, module[inner]))
    if bare:
        model.update_modules(tree_unflatten(bare))
    model.freeze()


def save(folder, tensors, config):
    """Write an adapter so that at any moment the folder holds the old one or the new one, never half of it.

    `tensors` is {name: array}; `config` goes to adapter_config.json.
    """
    folder = Path(folder)
    write_json(folder / CONFIG, config)
    save_tensors(folder / WEIGHTS, tensors)


def save_tensors(path, tensors):
    """Write {name: array} as one safetensors file, atomically."""
    path = Path(path)
    partial = path.with_name(f".{path.stem}.partial.safetensors")
    try:
        mx.save_safetensors(str(partial), tensors, metadata={"format": "mlx"})
        write_atomically(path, partial.read_bytes())
    except RuntimeError as error:
        raise LabError(f"{path}: cannot write ({error}); free the disk or choose another folder") from error
    finally:
        partial.unlink(missing_ok=True)


def describe(config):
    """One line for people: "lora, rank 4, scale 20, all layers"."""
    layers = "all layers" if config["num_layers"] < 0 else f"last {config['num_layers']} layers"
    if config["fine_tune_type"] == "full":
        return f"full, {layers}"
    parameters = config["lora_parameters"]
    keys = parameters.get("keys")
    where = f" of {json.dumps(keys)}" if keys else ""
    kind, rank, scale = config["fine_tune_type"], parameters["rank"], parameters["scale"]
    return f"{kind}, rank {rank}, scale {scale:g}, dropout {parameters.get('dropout', 0):g}, {layers}{where}"
