"""One training run from settings to summary: data checked first, then the model, then the loop, then what it leaves."""

import json
import math
import time
from pathlib import Path

from lab.device import describe, mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx.utils import tree_flatten
from mlx_lm.tuner.callbacks import get_reporting_callbacks
from mlx_lm.tuner.trainer import grad_checkpoint

from lab import adapters, models, probes, training
from lab.batches import Schedule, in_order
from lab.chat import Sequence, encode_row
from lab.cli import LabError, hashes, remove_summary, sha256, write_atomically, write_summary
from lab.facts import cut_before
from lab.records import training_rows
from lab.settings import resolve
from lab.stopping import EarlyStopping

RECALL_TOKENS = 48


def run(args):
    """Train and/or test as the flags say; returns the exit code."""
    settings, inherited = resolve(vars(args))
    if not settings.train and not settings.test:
        raise LabError("nothing to do: give --train, --test or both")
    tokenizer = models.load_tokenizer(settings.model)
    data = {name: load_split(settings, tokenizer, name) for name in splits(settings)}
    asked = load_recall(settings) if settings.train and settings.early_stop_on == "recall" else []
    inputs = hashes(input_files(settings, data))
    print(describe())
    model, tokenizer = models.load(settings.model)
    results = {}
    if settings.train:
        prepare(model, settings, inherited)
        results = fit(model, tokenizer, data, asked, settings)
    elif settings.adapter_path:  # as mlx-lm: --test alone measures the adapter, or the base with --adapter-path ""
        adapters.apply(model, settings.adapter_path)
    if settings.test:
        results["test_loss"] = training.evaluate(model, limited(data["test"], settings, settings.test_batches))
        print(f"test loss {results['test_loss']:.4f} nats/token, perplexity {math.exp(results['test_loss']):.3f}")
    args.__dict__.update(vars(settings))
    name = "summary.json" if settings.train else "test_summary.json"  # a test leaves the training's summary alone
    write_summary(settings.output or Path(settings.adapter_path) / name, args, inputs, results)
    return 0


def input_files(settings, data):
    """The files that decide the run: data, the model's config, the adapter that is resumed or tested."""
    files = [Path(settings.data) / f"{name}.jsonl" for name in data] + [Path(settings.model) / "config.json"]
    tested = Path(settings.adapter_path) / adapters.WEIGHTS
    if settings.resume_adapter_file and settings.train:
        files.append(Path(settings.resume_adapter_file))
    return [*files, tested] if not settings.train and tested.is_file() else files


def prepare(model, settings, inherited):
    """Give `model` its trainable part: new, or resumed and said aloud."""
    mx.random.seed(settings.seed)
    adapters.add_layers(model, vars(settings))
    if inherited:
        print(inherited)
        adapters.load_weights(model, settings.resume_adapter_file)
    if settings.grad_checkpoint:
        grad_checkpoint(model.layers[0])


def splits(settings):
    """The data files that this run reads: train and valid to train, test to test."""
    return (["train", "valid"] if settings.train else []) + (["test"] if settings.test else [])


def load_split(settings, tokenizer, name):
    """The sequences of one data file, cut to max_seq_length, each with something to learn.

    Raises LabError, naming file and line, for bad rows and for rows without a token to learn.
    """
    path = Path(settings.data) / f"{name}.jsonl"
    if not path.is_file():
        raise LabError(f"{path}: no such file; `make data` writes it, or give another --data")
    sequences, cut = [], 0
    rows = training_rows(path)
    if settings.mask_prompt and all("text" in row for _, row in rows):
        print(f"warning: {path}: text rows have no prompt to mask, so they are learnt whole")
    for number, row in rows:
        for whole in encode_row(tokenizer, row, f"{path}:{number}", settings.mask_prompt):
            limit = settings.max_seq_length + 1
            cut += len(whole) > limit
            sequence = Sequence(whole.tokens[:limit], whole.trained[:limit], whole.where)
            if not sequence.trained[1:].any():
                raise LabError(
                    f"{whole.where}: no token to learn (cut at {settings.max_seq_length}); shorten the prompt"
                )
            sequences.append(sequence)
    if cut:
        print(f"{path}: {cut} of {len(sequences)} sequences cut to {settings.max_seq_length} tokens")
    return sequences


def load_recall(settings):
    """What --early-stop-on recall asks: the Probes of <data>/recall.jsonl.

    A {"text", "accept"} row is cut before its accepted string, a {"messages", "accept"} row asks for its last answer.
    """
    path = Path(settings.data) / "recall.jsonl"
    if not path.is_file():
        raise LabError(f"{path}: no such file; --early-stop-on recall needs it, `make data` writes it")
    asked = []
    for number, row in training_rows(path):
        accept = row.get("accept")
        if not isinstance(accept, list) or not accept:
            raise LabError(f'{path}:{number}: no "accept"; list the strings that make it right')
        cut = (row["messages"][:-1], "") if "messages" in row else cut_before(row["text"], accept)
        if cut is None:
            raise LabError(
                f"{path}:{number}: nothing stands before {accept}; reword the sentence or remove the row"
            )
        kind = probes.CHAT if "messages" in row else probes.COMPLETION
        asked.append(probes.Probe(f"recall.jsonl:{number}", "recall", cut[0], tuple(accept), kind=kind))
    return asked


def recalled(model, tokenizer, asked):
    """The share of the Probes `asked` that the model, greedy, gets right; its mode is put back."""
    was_training = model.training
    model.eval()
    right = 0
    for kind, generate in ((probes.COMPLETION, models.complete), (probes.CHAT, models.answer)):
        own = [probe for probe in asked if probe.kind == kind]
        said = generate(model, tokenizer, [probe.prompt for probe in own], max_tokens=RECALL_TOKENS)
        right += sum(probes.judge(probe, text) for probe, text in zip(own, said, strict=True))
    model.train(was_training)
    return right / len(asked)


def limited(sequences, settings, number):
    """Evaluation batches, the same each time: all of them, or `number` of them evenly spread over the lengths."""
    batches = in_order(sequences, settings.batch_size)
    if number < 0 or number >= len(batches):
        return batches
    return [batches[(2 * place + 1) * len(batches) // (2 * number)] for place in range(number)]


def fit(model, tokenizer, data, asked, settings):
    """Run the loop with its reports, and leave the best adapter in settings.adapter_path; returns the results."""
    schedule = Schedule(data["train"], settings.batch_size, settings.seed)
    if settings.epochs:
        per_epoch = schedule.batches_per_epoch / settings.grad_accumulation_steps
        settings.iters = max(1, round(settings.epochs * per_epoch))
    validation = limited(data["valid"], settings, settings.val_batches)
    updates = training.Updates(model, training.make_optimizer(settings), schedule, settings)
    recorder = Recorder(model, settings)
    recorder.announce(data, schedule)
    stopping = EarlyStopping(settings.patience, settings.min_delta)
    started = time.monotonic()

    def validate():
        share = recalled(model, tokenizer, asked) if asked else None
        return {"valid_loss": training.evaluate(model, validation), "recall": share}

    made = training.train(updates, validate, stopping, recorder)
    model.load_weights(list(recorder.best.items()), strict=False)
    minutes = (time.monotonic() - started) / 60
    stopped = made < settings.iters
    why = f"stopped early at {made}" if stopped else f"all {made} iterations"
    best = next(row for row in reversed(recorder.curve) if row.get("best"))
    print(
        f"{why} in {minutes:.1f} minutes; kept iteration {best['iteration']}, {figures(best)}: {settings.adapter_path}"
    )
    return {
        "iterations": made,
        "stopped_early": stopped,
        "best_iteration": best["iteration"],
        "best_valid_loss": best["valid_loss"],
        "best_recall": best.get("recall"),
        "sequences": {name: len(sequences) for name, sequences in data.items()},
        "minutes": round(minutes, 2),
        "adapter_sha256": sha256(Path(settings.adapter_path) / adapters.WEIGHTS),
    }


def figures(row):
    """A validation's figures in words, of a curve row."""
    share = f", recall {row['recall']:.1%}" if "recall" in row else ""
    return f"validation loss {row['valid_loss']:.4f} nats/token{share}"


class Recorder:
    """Takes the loop's reports: prints them, keeps the curve, and writes the best adapter the moment it is found."""

    def __init__(self, model, settings):
        self.model, self.settings = model, settings
        self.folder = Path(settings.adapter_path)
        self.curve, self.best = [], {}
        self.config = {key: value for key, value in vars(settings).items() if key not in ("output", "config")}
        self.services = get_reporting_callbacks(
            settings.report_to, project_name=settings.project_name, log_dir=str(self.folder), config=self.config
        )
        remove_summary(self.folder)

    def announce(self, data, schedule):
        """Say what is about to be trained."""
        trainable = sum(value.size for _, value in tree_flatten(self.model.trainable_parameters()))
        print(f"{adapters.describe(self.config)}: {trainable:,} trained parameters")
        tokens = sum(int(sequence.trained[1:].sum()) for sequence in data["train"])
        epochs = self.settings.iters * self.settings.grad_accumulation_steps / schedule.batches_per_epoch
        counts = ", ".join(f"{name} {len(sequences)}" for name, sequences in data.items())
        print(f"sequences: {counts}; {tokens} trained tokens an epoch, {epochs:.1f} epochs at most")

    def __call__(self, report):
        self.curve.append(report.row())
        if report.best:
            self._keep_best()
        if report.valid_loss is not None:
            note = "  <- best so far, saved" if report.best else ""
            print(f"iteration {report.iteration}: {figures(self.curve[-1])}{note}", flush=True)
            write_atomically(self.folder / "curve.jsonl", "".join(json.dumps(row) + "\n" for row in self.curve))
            self._tell("on_val_loss_report", {"iteration": report.iteration, "val_loss": report.valid_loss})
        if report.train_loss is not None:
            rate, speed = report.learning_rate, report.tokens_per_second
            line = f"train loss {report.train_loss:.4f}, rate {rate:.2e}, {speed:.0f} trained tokens/s"
            print(f"iteration {report.iteration}: {line}", flush=True)
            self._tell("on_train_loss_report", {"iteration": report.iteration, "train_loss": report.train_loss})

    def _keep_best(self):
        # copies: the optimizer goes on changing the model's own arrays
        self.best = {name: mx.array(value) for name, value in tree_flatten(self.model.trainable_parameters())}
        adapters.save(self.folder, self.best, self.config)

    def _tell(self, event, content):
        if self.services is not None:
            getattr(self.services, event)(content)

    def after_update(self, iteration):
        """Keep the numbered copies of --save-every, and the allocator's cache below its threshold."""
        every, limit = self.settings.save_every, self.settings.clear_cache_threshold
        if every and iteration % every == 0:
            weights = dict(tree_flatten(self.model.trainable_parameters()))
            adapters.save_tensors(self.folder / f"{iteration:07d}_{adapters.WEIGHTS}", weights)
        if limit and mx.get_cache_memory() > limit:
            mx.clear_cache()
