"""What a stage costs besides answers: bytes on the disk, trained parameters, what its training took.

The time and memory of a training stand in cost.json, not in summary.json: that one is the same byte for byte when the same
run is made again, or was interrupted.
"""

import resource
import sys
from pathlib import Path

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx.utils import tree_flatten
from mlx_lm.utils import get_total_parameters

from lab import adapters, storage
from lab.cli import read_json, sha256
from lab.hub import model_folder

COST = "cost.json"


def peak_memory():
    """(process, device): the peaks in bytes of this process's resident memory and of MLX's arrays."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, mx.get_peak_memory()


def write_training(folder, model, seconds, updates):
    """Write cost.json: wall-clock `seconds` of the loop, evaluations and saving included, for `updates` of this process.

    A run that was resumed made fewer updates here than its summary counts.
    """
    process, device = peak_memory()
    trained = sum(value.size for _, value in tree_flatten(model.trainable_parameters()))
    content = {"seconds": round(seconds, 2), "updates": updates, "trained_parameters": trained}
    content |= {"process_bytes": process, "device_bytes": device}
    storage.replace_file(Path(folder) / COST, [storage.as_json(content)])


def training(folder):
    """What training the adapter of `folder` took: its cost.json, with rate, kind and validation loss of its summary.

    {} for an adapter from elsewhere, which has neither, and for one that is not the summary's: another was put in its
    place, or is in the making there.
    """
    folder = Path(folder)
    if not (folder / "summary.json").is_file():
        return {}
    summary = read_json(folder / "summary.json", "train the adapter again")
    if summary.get("adapter_sha256") not in (None, sha256(folder / adapters.WEIGHTS)):
        return {}
    keys = ("iterations", "best_iteration", "best_valid_loss", "stopped_by")
    found = {key: summary[key] for key in keys if key in summary}
    if (folder / COST).is_file():
        found |= read_json(folder / COST, "train the adapter again")
    return found


def size(folder, parameters):
    """The size of the adapter in `folder` beside a model of `parameters`.

    Returns {"kind": in words, "bytes": on the disk, "trained_parameters", "share": of the model's parameters}.
    """
    folder = Path(folder)
    tensors = adapters.read_weights(folder / adapters.WEIGHTS)
    trained = sum(value.size for value in tensors.values())
    nbytes = sum((folder / name).stat().st_size for name in (adapters.WEIGHTS, adapters.CONFIG))
    kind = adapters.describe(adapters.read_config(folder))
    return {"kind": kind, "bytes": nbytes, "trained_parameters": trained, "share": round(trained / parameters, 6)}


def model_size(model, folder):
    """{"bytes": of the weights on the disk, "parameters"} of a bare model."""
    nbytes = sum(path.stat().st_size for path in model_folder(folder).glob("*.safetensors"))
    return {"bytes": nbytes, "parameters": int(get_total_parameters(model))}
