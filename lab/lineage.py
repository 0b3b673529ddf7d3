"""On which model an adapter was trained: shapes of another one may fit all the same, and then nothing else would tell."""

import sys
from pathlib import Path

from lab.cli import read_json

CONFIG, SUMMARY = "adapter_config.json", "summary.json"
REMEDY = "train the adapter again"


def other_model(adapter, model):
    """What tells that the adapter in a folder was trained on another model than `model`, in words; "" for nothing.

    Its summary names the weights; an adapter from elsewhere has none, and then the model's name is looked at.
    """
    from lab.fingerprint import unlike_weights  # imports mlx

    adapter, named = Path(adapter), ""
    if (adapter / CONFIG).is_file():
        named = read_json(adapter / CONFIG, REMEDY).get("model") or ""
    found = read_json(adapter / SUMMARY, REMEDY).get("fingerprint", {}) if (adapter / SUMMARY).is_file() else {}
    if others := unlike_weights(found, model):
        where = f"{named}, which has " if named and Path(named).name != Path(model).name else "a model with "
        return f"{where}another {', '.join(others)}"
    return str(named) if not found and named and Path(named).name != Path(model).name else ""


def warn_of_other_model(adapter, model):
    """Say on standard error that an adapter was trained on another model, a quantized one of the same weights among them."""
    if adapter and (other := other_model(adapter, model)):
        print(f"warning: {adapter} was trained on {other}; this is {model}", file=sys.stderr, flush=True)
