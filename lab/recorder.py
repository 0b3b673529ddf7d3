"""What a run says and leaves while it goes: lines, the curve, checkpoints, and the best adapter the moment it is found.

A checkpoint comes first and holds the best adapter too; adapters.safetensors and curve.jsonl are made from it after that,
and again on a resume. So a crash at any moment leaves files that one checkpoint accounts for, or the earlier run's.
"""

import json
import re
from pathlib import Path

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx.utils import tree_flatten
from mlx_lm.tuner.callbacks import get_reporting_callbacks

from lab import adapters, signals, storage
from lab.runs import SUMMARY

CURVE = "curve.jsonl"
NOT_KEPT = {"output", "config", "resume", "overwrite"}  # an interrupted run and one that was not say the same
COPY = re.compile(rf"\d{{7,}}_{re.escape(adapters.WEIGHTS)}")


class Recorder:
    """Keeps the run of `updates` in settings.adapter_path; `beginning` says where it starts (see runs.begin)."""

    def __init__(self, updates, beginning, fingerprint):
        self.updates, self.settings, self.snapshots = updates, updates.settings, beginning.snapshots
        self.folder, self.fingerprint = Path(self.settings.adapter_path), fingerprint
        self.config = {key: value for key, value in vars(self.settings).items() if key not in NOT_KEPT}
        self.best, self.inside, self.saved, self.published = {}, {}, None, False
        self.start, self.copied = -1, set()
        self.services = get_reporting_callbacks(
            self.settings.report_to,
            project_name=self.settings.project_name,
            log_dir=str(self.folder),
            config=self.config,
        )

    def announce(self, data, schedule):
        """Say what is about to be trained."""
        trainable = sum(value.size for _, value in tree_flatten(self.updates.model.trainable_parameters()))
        print(f"{adapters.describe(self.config)}: {trainable:,} trained parameters")
        tokens = sum(int(sequence.trained[1:].sum()) for sequence in data["train"])
        epochs = self.settings.iters * self.settings.grad_accumulation_steps / schedule.batches_per_epoch
        counts = ", ".join(f"{name} {len(sequences)}" for name, sequences in data.items())
        print(f"sequences: {counts}; {tokens} trained tokens an epoch, {epochs:.1f} epochs at most", flush=True)

    def trained(self, point, speed):
        """Say how training goes: a point of the curve, and trained tokens a second."""
        words = f"train loss {point['train_loss']:.4f}, rate {point['learning_rate']:.2e}"
        print(f"iteration {point['iteration']}: {words}, {speed:.0f} trained tokens/s", flush=True)
        self._tell("on_train_loss_report", {"iteration": point["iteration"], "train_loss": point["train_loss"]})

    def evaluated(self, state, point):
        """Save a checkpoint after an evaluation, put the best adapter and the curve in their places, and say it."""
        if point.get("best"):
            self.best = _copies(dict(tree_flatten(self.updates.model.trainable_parameters())))
        if state.guard.action == "restore" and state.guard.inside:
            self.inside = _copies(self.updates.tensors())
        self.save(state)
        self._publish(state, new_best=point.get("best"))
        notes = [text for key, text in NOTES.items() if point.get(key)]
        print(f"iteration {point['iteration']}: {figures(point)}{''.join(notes)}", flush=True)
        self._tell("on_val_loss_report", {"iteration": point["iteration"], "val_loss": point["valid_loss"]})

    def copy(self, state):
        """Save the adapter as it is now under the iteration's number, then a checkpoint, which is not to come first."""
        weights = _part("weights", self.updates.tensors())
        adapters.save_tensors(self.folder / f"{state.iteration:07d}_{adapters.WEIGHTS}", weights)
        self.copied.add(state.iteration)
        self.save(state)

    def save(self, state):
        """Save a checkpoint of this moment, once."""
        moment = (state.iteration, state.evaluated)
        if moment == self.saved:
            return
        tensors = {**self.updates.tensors(), **_named("best", self.best), **_named("inside", self.inside)}
        content = {"fingerprint": self.fingerprint, "run_state": state.content()}
        self.snapshots.save(state.iteration, tensors, content)
        self.saved = moment

    def leave(self, state):
        """Save a checkpoint and stop, because a signal asked for it."""
        self.save(state)
        raise signals.Stopped(f"stopped at iteration {state.iteration}, checkpoint saved")

    def go_on(self, snapshot, state):
        """Put back what a checkpoint holds."""
        self.updates.restore(snapshot.tensors)
        self.best, self.inside = _part("best", snapshot.tensors), _part("inside", snapshot.tensors)
        self.saved, self.start = (state.iteration, state.evaluated), state.iteration
        self._publish(state, new_best=bool(self.best))

    def _publish(self, state, new_best):
        """Bring the folder up to the last checkpoint; an earlier run's results stay until there is a first best adapter."""
        if not self.best:
            return
        if not self.published:
            self._remove_earlier()
        if new_best:
            adapters.save(self.folder, self.best, self.config)
        rows = "".join(json.dumps(row) + "\n" for row in state.curve)
        storage.replace_file(self.folder / CURVE, [rows.encode()])
        self.published = True

    def _remove_earlier(self):
        """Take away an earlier run's summary and numbered copies."""
        with storage.writing(self.folder):
            storage.remove(self.folder / SUMMARY)
            for path in self.folder.iterdir():
                number = int(path.name.partition("_")[0]) if COPY.fullmatch(path.name) else self.start
                if number > self.start and number not in self.copied:
                    storage.remove(path)

    def _tell(self, event, content):
        if self.services is not None:
            getattr(self.services, event)(content)


NOTES = {
    "best": "  <- best so far, saved",
    "stepped_back": "  <- forgets too much: back to the last evaluation, half the rate",
}


def figures(point):
    """A validation's figures in words, of a point of the curve."""
    share = f", recall {point['recall']:.1%}" if "recall" in point else ""
    general = f", general {point['guard_loss']:.4f}" if "guard_loss" in point else ""
    return f"validation loss {point['valid_loss']:.4f} nats/token{general}{share}"


def _copies(tensors):
    """Copies: the optimizer goes on changing the model's own arrays."""
    return {name: mx.array(value) for name, value in tensors.items()}


def _named(part, tensors):
    return {f"{part}.{name}": value for name, value in tensors.items()}


def _part(part, tensors):
    return {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}
