"""Which files a training run reads: its rows, what decides its bytes, and what its summary names as inputs."""

from pathlib import Path

from lab.adapters import WEIGHTS
from lab.hub import model_folder


def asks_recall(settings):
    """Whether sentences of recall.jsonl are completed at each evaluation."""
    return settings.train and settings.early_stop_on == "recall"


def data_files(settings):
    """The files of rows that this run reads, {label: path}: train, valid and guard to train, test to test."""
    names = (["train", "valid"] if settings.train else []) + (["test"] if settings.test else [])
    files = {name: Path(settings.data) / f"{name}.jsonl" for name in names}
    return files | ({"guard": Path(settings.guard_data)} if settings.train and settings.guard_data else {})


def deciding_files(settings):
    """The files besides the model that decide a training run's bytes, {label: path}."""
    files = {label: path for label, path in data_files(settings).items() if label != "test"}
    if asks_recall(settings):
        files["recall"] = Path(settings.data) / "recall.jsonl"
    if settings.resume_adapter_file:
        files["resumed adapter"] = Path(settings.resume_adapter_file)
    return files


def input_files(settings):
    """What a summary names as its inputs: data, the model's config, the adapter that is resumed or tested."""
    files = [*data_files(settings).values(), model_folder(settings.model) / "config.json"]
    tested = Path(settings.adapter_path) / WEIGHTS
    if settings.resume_adapter_file and settings.train:
        files.append(Path(settings.resume_adapter_file))
    return [*files, tested] if not settings.train and tested.is_file() else files
