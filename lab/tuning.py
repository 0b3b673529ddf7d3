"""One training run from settings to summary: data checked first, then the model, then the loop, then what it leaves."""

import math
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

from lab.device import describe, mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx_lm.tuner.trainer import grad_checkpoint

from lab import (
    adapters,
    costs,
    durable,
    followers,
    memory,
    models,
    ranks,
    recall,
    runs,
    signals,
    storage,
    training,
)
from lab.batches import Schedule, in_order
from lab.cli import DONE, STOPPED, Diverged, LabError, hashes, sha256, write_summary
from lab.epochs import updates_of
from lab.fingerprint import fingerprint
from lab.lineage import warn_of_other_model
from lab.preflight import settle
from lab.read_files import asks_recall, data_files, deciding_files, input_files
from lab.recorder import NOT_KEPT, figures
from lab.run_state import RunState
from lab.sequences import load_sequences
from lab.settings import resolve
from lab.stopping import EarlyStopping, ForgettingGuard


def run(args):
    """Train and/or test as the flags say; returns the exit code."""
    settings, inherited = resolve(vars(args))
    if not settings.train and not settings.test:
        raise LabError("nothing to do: give --train, --test or both")
    if settings.max_forgetting is not None and not settings.guard_data:
        raise LabError("--max-forgetting: needs general rows to measure it on; give --guard-data FILE.jsonl")
    if getattr(args, "guard_action", None) and settings.max_forgetting is None:
        raise LabError("--guard-action: nothing to act on; give --guard-data FILE.jsonl and --max-forgetting too")
    followers.settle(settings)
    if settings.train and ranks.first():
        runs.refuse_foreign(settings.adapter_path)
        runs.refuse_busy(settings.adapter_path)
        runs.refuse_used(settings)
    tokenizer = models.load_tokenizer(settings.model)
    if settings.resume_adapter_file and ranks.first():
        warn_of_other_model(Path(settings.resume_adapter_file).parent, settings.model)
    data = {label: load(settings, tokenizer, path) for label, path in data_files(settings).items()}
    asked = recall.load(settings.data) if asks_recall(settings) else []
    inputs = hashes(input_files(settings))
    print(describe(), flush=True)
    if not settings.train:
        return test_alone(settings, data, inputs)
    try:
        with followers.locked(settings.adapter_path):
            return run_in_folder(settings, inherited, data, asked, inputs)
    except signals.Interrupted:
        where = "stopped while testing, the training is saved"
    except signals.Stopped as stopped:
        where = stopped
    print(f"{where}; go on with:\n  {signals.resume_command()}", file=sys.stderr)
    return STOPPED


def run_in_folder(settings, inherited, data, asked, inputs):
    """Train, from where the folder's checkpoints are, to the summary; returns the exit code."""
    schedule = Schedule(data["train"], settings.batch_size, settings.seed)
    if settings.epochs:
        batches, accumulated = schedule.batches_per_epoch, settings.grad_accumulation_steps
        settings.iters = updates_of(settings.epochs, batches, accumulated)
    settle(settings)
    found = fingerprint(settings, deciding_files(settings))
    beginning = followers.begin(settings, found)
    if beginning.finished:
        already_finished(settings, beginning)
        return test_alone(settings, data, inputs) if settings.test else DONE
    memory.check(settings, memory.largest_batch(data["train"], ranks.share_of(settings.batch_size)))
    model, tokenizer = models.load(settings.model)
    prepare(model, settings, inherited)
    with checkpointed(model.layers[0], settings):
        results = fit(model, tokenizer, data, asked, schedule, beginning, found)
    if settings.test:
        with ranks.giving_up():
            results |= test(model, data, settings)
    if ranks.first():
        summarize(settings, inputs, {**results, "fingerprint": found})
        beginning.snapshots.clear()
    return DONE


@contextmanager
def checkpointed(layer, settings):
    """Gradient checkpointing while the block runs, if asked for: mlx-lm changes the layer's class, for the whole process."""
    plain = type(layer).__call__
    if settings.grad_checkpoint:
        grad_checkpoint(layer)
    try:
        yield
    finally:
        type(layer).__call__ = plain


def already_finished(settings, beginning):
    """Nothing is left to train; Make, which goes by the summary's time, is told so."""
    if ranks.first():
        (Path(settings.adapter_path) / runs.SUMMARY).touch()
        beginning.snapshots.clear()
    print(f"{settings.adapter_path}: this run is finished; nothing to do")


def test(model, data, settings):
    """The loss on the test set, said and as a result."""
    loss = training.evaluate(model, limited(data["test"], settings, settings.test_batches))
    print(f"test loss {loss:.4f} nats/token, perplexity {math.exp(loss):.3f}")
    return {"test_loss": loss}


def test_alone(settings, data, inputs):
    """Measure the adapter, or the base with --adapter-path "", as mlx-lm does; returns the exit code."""
    model, _ = models.load(settings.model, settings.adapter_path or None)
    results = test(model, data, settings)
    if ranks.first():
        summarize(settings, inputs, results, "test_summary.json")  # the training's summary stays
    return DONE


def summarize(settings, inputs, results, name=runs.SUMMARY):
    """Write the summary, and have it on the disk before anything that it makes superfluous is removed."""
    path = Path(settings.output or Path(settings.adapter_path) / name)
    flags = {key: value for key, value in vars(settings).items() if key not in NOT_KEPT - {"output", "config"}}
    write_summary(path, SimpleNamespace(**flags), inputs, results)
    with storage.writing(path):
        for left in path.parent.glob(f".{path.name}.*.partial"):  # of a process that was killed here
            storage.remove(left)
        durable.sync_folder(path.parent)


def prepare(model, settings, inherited):
    """Give `model` its trainable part: new, or resumed and said aloud."""
    mx.random.seed(settings.seed)
    adapters.add_layers(model, vars(settings))
    if inherited:
        print(inherited)
        adapters.load_weights(model, settings.resume_adapter_file)
    if settings.fine_tune_type != "full":
        ranks.begin_alike(model)


def load(settings, tokenizer, path):
    """The sequences of one data file."""
    return load_sequences(path, tokenizer, settings.mask_prompt, settings.max_seq_length)


def limited(sequences, settings, number):
    """Evaluation batches, the same each time: all of them, or `number` of them evenly spread over the lengths."""
    batches = in_order(sequences, settings.batch_size)
    if number < 0 or number >= len(batches):
        return batches
    return [batches[(2 * place + 1) * len(batches) // (2 * number)] for place in range(number)]


def fit(model, tokenizer, data, asked, schedule, beginning, found):
    """Run the loop with its reports, and leave the best adapter in settings.adapter_path; returns the results."""
    settings = beginning.settings
    state = begun(beginning)
    optimizer = training.make_optimizer(settings, lambda: state.guard.slowed)
    updates = training.Updates(model, optimizer, schedule, settings)
    recorder = followers.recorder(updates, beginning, found)
    signals.training_begins()
    recorder.announce(data, schedule)
    if beginning.snapshot:
        recorder.go_on(beginning.snapshot, state)
    started = time.monotonic()
    measure = measuring(model, tokenizer, data, asked, settings)
    try:
        with recorder.live, closing(recorder.services):
            training.train(updates, measure, state, recorder)
    except Diverged as error:
        raise Diverged(f"iteration {state.iteration}, {updates.circumstances()}: {error}") from None
    seconds = time.monotonic() - started
    model.load_weights(list(recorder.best.items()), strict=False)
    if ranks.first():
        made = state.iteration - (beginning.snapshot.iteration if beginning.snapshot else 0)
        costs.write_training(settings.adapter_path, model, seconds, made)
    best = next(row for row in reversed(state.curve) if row.get("best"))
    print(
        f"{ending(state, settings)} in {seconds / 60:.1f} minutes; "
        f"kept iteration {best['iteration']}, {figures(best)}: {settings.adapter_path}"
    )
    if not asked:
        warn_where_worse(state.curve[0]["valid_loss"], best["valid_loss"])
    return {
        "iterations": state.iteration,
        "stopped_early": state.stopped_by is not None,
        "stopped_by": state.stopped_by,
        "best_iteration": best["iteration"],
        "best_valid_loss": best["valid_loss"],
        "best_recall": best.get("recall"),
        "best_guard_loss": best.get("guard_loss"),
        "steps_back": state.guard.steps_back,
        "sequences": {name: len(sequences) for name, sequences in data.items()},
        "padding": dict(zip(("share", "shapes"), schedule.padding(), strict=True)),
        "adapter_sha256": sha256(Path(settings.adapter_path) / adapters.WEIGHTS) if ranks.first() else None,
    }


def warn_where_worse(before, after):
    """Say it where the kept adapter's validation loss is higher than the loss before training."""
    if after > before:
        words = f"validation loss {after:.4f}, before training {before:.4f}"
        print(f"warning: the adapter is worse than what it began with ({words}); use a lower --learning-rate")


def begun(beginning):
    """The RunState at the start: a new one, or the checkpoint's."""
    if beginning.snapshot:
        return RunState.of(beginning.snapshot.state["run_state"])
    settings = beginning.settings
    guard = ForgettingGuard(settings.max_forgetting, settings.guard_action)
    return RunState(stopping=EarlyStopping(settings.patience, settings.min_delta), guard=guard)


def measuring(model, tokenizer, data, asked, settings):
    """A function that evaluates: validation loss, and where they are asked for recall and the loss on general text."""
    parts = {"valid_loss": "valid", "guard_loss": "guard"}
    batches = {
        figure: limited(data[name], settings, settings.val_batches)
        for figure, name in parts.items()
        if name in data
    }

    def measure():
        ranks.refuse_different(model)
        found = {figure: training.evaluate(model, part) for figure, part in batches.items()}
        return found | ({"recall": recall.share(model, tokenizer, asked)} if asked else {})

    return measure


def ending(state, settings):
    """Why the run ended, in words."""
    why = {
        "patience": f"stopped early at {state.iteration}",
        "forgetting": f"stopped at {state.iteration}: the loss on general text rose by more than "
        f"{settings.max_forgetting} nats/token",
    }
    return why.get(state.stopped_by, f"all {state.iteration} iterations")
