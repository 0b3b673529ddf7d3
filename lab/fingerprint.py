"""What decides a run's bytes, as a flat {label: value}: two runs that agree in it end with the same adapter and curve.

Folders' and files' names are not in it: a model or data set that was moved is still the same.
"""

import hashlib
import json
import os
import platform
from pathlib import Path

from lab.cli import sha256, versions
from lab.device import describe
from lab.hub import model_folder
from lab.launched import size

# Where a run is and what it prints or keeps besides; none of it changes the adapter or the curve.
FREE = {
    *("model", "data", "adapter_path", "resume_adapter_file", "guard_data", "config", "output"),
    *("train", "test", "test_batches", "resume", "overwrite", "keep_last", "save_every", "trust_remote_code"),
    *("report_to", "project_name", "clear_cache_threshold", "memory_check"),
}
OF_THE_MODEL = {".json", ".jinja", ".safetensors", ".model", ".txt"}
WHOLE_BYTES = 64 << 20  # larger weight files are sampled: 35 GB would take a minute at every start
SAMPLES, SAMPLE_BYTES = 64, 1 << 20


def fingerprint(settings, files):
    """What decides the run of `settings`; `files` is {label: path} of what it reads besides the model.

    Raises OSError for a file that cannot be read.
    """
    found = {f"setting {key}": value for key, value in sorted(vars(settings).items()) if key not in FREE}
    found |= {f"file {label}": sha256(path) for label, path in sorted(files.items())}
    found |= of_the_model(settings.model)
    found |= {f"version {name}": version for name, version in versions().items()}
    found |= {f"machine {name}": value for name, value in machine().items()}
    found["ranks"] = size()  # the order of a sum over ranks decides its last bits
    return json.loads(json.dumps(found))  # as a checkpoint gives it back


def of_the_model(model):
    """{"model NAME": hash} of the files that decide what a model says: weights, config, tokenizer, chat template."""
    files = (path for path in sorted(model_folder(model).iterdir()) if path.suffix in OF_THE_MODEL)
    return {f"model {path.name}": sampled_sha256(path) for path in files if path.name != "summary.json"}


def unlike_weights(found, model):
    """The weight files by which the model of a fingerprint and `model` differ; [] where it names none."""
    labels = {name for name in found if name.startswith("model ") and name.endswith(".safetensors")}
    files = {f"model {path.name}": path for path in model_folder(model).glob("*.safetensors")}
    labels |= files.keys() if labels else set()
    known = {label: sampled_sha256(files[label]) for label in labels & files.keys()}
    return sorted(label.removeprefix("model ") for label in labels if found.get(label) != known.get(label))


def identity(found):
    """The SHA-256 of a fingerprint."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def differences(old, new):
    """What differs between two fingerprints, one "label: old -> new" each; hashes are shortened."""
    labels = sorted(label for label in old.keys() | new.keys() if old.get(label) != new.get(label))
    return [f"{label}: {_short(old.get(label))} -> {_short(new.get(label))}" for label in labels]


def _short(value):
    hashed = isinstance(value, str) and len(value) == 64
    return "none" if value is None else value[:12] if hashed else json.dumps(value, ensure_ascii=False)


def sampled_sha256(path):
    """SHA-256 of a file: of all of it, or where it is large of its size and 64 pieces of 1 MiB spread over it.

    The first piece holds the header: names, shapes and number formats of all tensors of a layer file.
    """
    size = os.path.getsize(path)
    if size <= WHOLE_BYTES:
        return sha256(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for number in range(SAMPLES):
            file.seek(number * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def machine():
    """What the last bits of a sum can depend on: backend, BLAS, processor, how many threads share the work."""
    threads = [os.environ.get(name) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"device": describe(), "processor": _processor(), "usable cores": cores, "thread limits": threads}


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"
