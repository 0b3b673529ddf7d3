"""What a run says and leaves while it goes: lines, the curve, checkpoints, and the best adapter the moment it is found.

A checkpoint comes first and holds the best adapter too; adapters.safetensors and curve.jsonl are made from it after that,
and again on a resume. So a crash at any moment leaves files that one checkpoint accounts for, or the earlier run's.
"""

import json
import re
from pathlib import Path

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx.utils import tree_flatten

from lab import adapters, schedules, signals, storage
from lab.cli import commit
from lab.epochs import updates_per_epoch
from lab.progress import Live
from lab.runs import CURVE, SUMMARY
from lab.services import Services

NOT_KEPT = {"output", "config", "resume", "overwrite"}  # an interrupted run and one that was not say the same
COPY = re.compile(rf"\d{{7,}}_{re.escape(adapters.WEIGHTS)}")


class Recorder:
    """Keeps the run of `updates` in settings.adapter_path; `beginning` says where it starts (see runs.begin)."""

    def __init__(self, updates, beginning, fingerprint):
        self.updates, self.settings, self.snapshots = updates, updates.settings, beginning.snapshots
        self.folder, self.fingerprint = Path(self.settings.adapter_path), fingerprint
        self.config = {key: value for key, value in vars(self.settings).items() if key not in NOT_KEPT}
        self.best, self.inside, self.saved, self.published = {}, {}, None, False
        self.start, self.copied, self.commit = -1, set(), commit()
        start = beginning.snapshot.iteration if beginning.snapshot else 0
        self.live = Live(self.settings.iters, start)
        self.services = Services(self.settings, self.config, start)

    def announce(self, data, schedule):
        """Say what is about to be trained."""
        trainable = sum(value.size for _, value in tree_flatten(self.updates.model.trainable_parameters()))
        print(f"{adapters.describe(self.config)}: {trainable:,} trained parameters")
        tokens = sum(int(sequence.trained[1:].sum()) for sequence in data["train"])
        each = updates_per_epoch(schedule.batches_per_epoch, self.settings.grad_accumulation_steps)
        counts = ", ".join(f"{name} {len(sequences)}" for name, sequences in data.items())
        print(
            f"sequences: {counts}; {tokens} trained tokens an epoch, {self.settings.iters / each:.1f} epochs at most"
        )
        wasted, shapes = schedule.padding()
        print(f"batches: {wasted:.1%} of their positions are padding, {shapes} distinct shapes")
        print(schedules.describe(self.settings), flush=True)

    def trained(self, point, speed):
        """Say how training goes: a point of the curve, and trained tokens a second."""
        figures = {name: point[name] for name in ("train_loss", "learning_rate")}
        peak = mx.get_peak_memory()
        self.live.trained(point["iteration"], *figures.values(), speed, peak)
        self.services.trained(point["iteration"], **figures, tokens_per_second=speed, peak_memory=peak / 1e9)

    def evaluated(self, state, point):
        """Save a checkpoint after an evaluation, put the best adapter and the curve in their places, and say it."""
        if point.get("best"):
            self.best = _copies(dict(tree_flatten(self.updates.model.trainable_parameters())))
        if state.guard.action == "restore" and state.guard.inside:
            self.inside = _copies(self.updates.tensors())
        self.save(state)
        self._publish(state, new_best=point.get("best"))
        notes = [text for key, text in NOTES.items() if point.get(key)]
        self.live.evaluated(point["iteration"], figures(point) + "".join(notes), point["valid_loss"])
        others = {name: point.get(name) for name in ("recall", "guard_loss")}
        self.services.evaluated(point["iteration"], val_loss=point["valid_loss"], **others)

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
        content = {"fingerprint": self.fingerprint, "run_state": state.content(), "commit": self.commit}
        self.snapshots.save(state.iteration, tensors, content)
        self.saved = moment

    def leave(self, state):
        """Save a checkpoint and stop, because a signal asked for it."""
        self.save(state)
        raise signals.Stopped(f"stopped at iteration {state.iteration}, checkpoint saved")

    def go_on(self, snapshot, state):
        """Put back what a checkpoint holds."""
        if (before := snapshot.state["commit"]) != self.commit:
            print(
                f"warning: the lab's own code was {before} before and is {self.commit}: other bytes are possible"
            )
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
