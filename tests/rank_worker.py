"""What the ranks of tests/test_ranks.py do besides training, each writing what it found to <folder>/<rank>.json:

python -m lab.launch --ranks 2 -- python tests/rank_worker.py WORLD FOLDER
"""

import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import numpy as np

from lab import ranks, training, tuning
from lab.batches import Schedule
from lab.cli import LabError
from lab.settings import resolve
from train_with_early_stopping import parse_args

MADE = {
    "floats": mx.array([-0.0, float("nan"), 1e-45, 3.0]),
    "half": mx.array([[1.5, -0.0]], dtype=mx.bfloat16),
    "scalar": mx.array(2**40 + 1, dtype=mx.uint64),
    "switch": mx.array([True, False]),
}


def digest(tensors):
    """SHA-256 of {name: array}."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {value.shape}".encode())
        found.update(np.array(value.reshape(-1).view(mx.uint8)).tobytes())
    return found.hexdigest()


def digests_of_steps(world, updates_made=5):
    """The digest of weights and optimizer after each update; the batches are of 2 rows and, at the end, 1."""
    flags = ["-c", world / "settings.yaml", "--model", world / "model", "--data", world / "data"]
    args = parse_args([*map(str, flags), "--train", "--batch-size", "2", "--grad-accumulation-steps", "3"])
    settings, _ = resolve(vars(args))
    model, tokenizer = tuning.models.load(settings.model)
    settings.seed += ranks.rank()  # other machines may draw other numbers: they take the first one's
    tuning.prepare(model, settings, None)
    settings.seed = 0
    rows = tuning.load(settings, tokenizer, world / "data/train.jsonl")[:5]
    updates = training.Updates(model, training.make_optimizer(settings), Schedule(rows, 2, 0), settings)
    model.train()
    found = []
    for update in range(updates_made):
        updates(update)
        found.append(digest(updates.tensors()))
    return model, found


def refused(model):
    """What is said of ranks whose weights differ in one bit."""
    ranks.refuse_different(model)
    if not ranks.first():
        weights = model.layers[0].self_attn.q_proj
        weights.lora_b = (
            weights.lora_b.view(mx.uint32)
            ^ (mx.arange(weights.lora_b.size) == 3).reshape(weights.lora_b.shape).astype(mx.uint32)
        ).view(mx.float32)
    try:
        ranks.refuse_different(model)
    except LabError as error:
        return str(error)


def work(world, folder):
    model, steps = digests_of_steps(world)
    told = ranks.told_tensors(MADE if ranks.first() else None)
    found = {"steps": steps, "told": digest(told), "made": digest(MADE), "refused": refused(model)}
    (folder / f"{ranks.rank()}.json").write_text(json.dumps(found), encoding="utf-8")
    ranks.total(1.0)  # the first rank's end ends the others, who may not have written yet


if __name__ == "__main__":
    sys.exit(ranks.run(lambda: work(*map(Path, sys.argv[1:]))))
