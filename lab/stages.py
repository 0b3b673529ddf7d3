"""What the verification commands share: flags, stages, one loaded model for all of them, and the summary."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from lab import token_limits
from lab.cli import LabError, check_place, read_json, write_summary
from lab.hub import default_hcx, model_folder
from lab.lineage import warn_of_other_model
from lab.progress import progress
from lab.report import one_line, show

KNOWLEDGE, GENERAL = Path("solverx_knowledge.jsonl"), Path("data_general")
BASE = "base"
ADAPTER_FILES = ("adapter_config.json", "adapters.safetensors")
PARTS = 2  # batches between two signs of progress
SAMPLE_PLAN = {"identity": 1, "recall_paraphrase": 3, "general": 2, "mab_ts": 1}


@dataclass(frozen=True)
class Stage:
    """A stage to measure: the base model (`adapter` None) or an adapter's folder on it."""

    name: str
    adapter: Path | None


def command_parser(description):
    """An argument parser whose help shows `description` as it is written."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=raw)


def add_model_flags(parser, adapters=True, default=None):
    """The flags that say which model, which adapters, how many answers at once, where the summary goes."""
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        default=default or default_hcx(),
        help="folder of the (converted) model, or its id on the hub (%(default)s)",
    )
    if adapters:
        add("--adapter-path", nargs="+", default=[BASE], metavar="STAGE", help="base, DIR or NAME=DIR (base)")
    add("--batch-size", type=count, default=64, help="answers at a time (%(default)s)")
    for flag, text in token_limits.helps().items():
        add(flag, type=count, help=text)
    add("--output", type=Path, metavar="FILE.json", help="where the summary goes")


def add_probe_flags(parser, show=None):
    """The flags that say what is asked; `show` is the default of --show, None for no such flag."""
    add = parser.add_argument
    add("--knowledge", type=Path, default=KNOWLEDGE, help="the company's facts (%(default)s)")
    add("--general", type=Path, default=GENERAL, help="general questions, identity (%(default)s)")
    add("--data", nargs="+", metavar="DIR", help="training data to count (what the adapters were trained on)")
    add("--limit", type=count, help="ask at most so many probes a metric (all)")
    if show is not None:
        add("--show", type=int, default=show, help="answers printed of each stage and metric (%(default)s)")


def count(text):
    """A flag's whole number of at least 1. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def stages_of(args):
    """The stages of --adapter-path. Raises LabError for a folder without an adapter or a name given twice."""
    stages = [_stage(item) for item in args.adapter_path]
    names = [stage.name for stage in stages]
    if twice := [name for name in names if names.count(name) > 1]:
        raise LabError(f"--adapter-path: stage {twice[0]!r} stands twice; tell them apart by NAME=DIR")
    return stages


def named(item):
    """(name, folder or None for the base model) that an item of --adapter-path stands for."""
    name, _, path = item.partition("=") if "=" in item else ("", "", item)
    if path == BASE:
        return name or BASE, None
    folder = Path(path).parent if path.endswith(".safetensors") else Path(path)
    return name or folder.name, folder


def _stage(item):
    name, folder = named(item)
    if "/" in name or not name:
        raise LabError(f"--adapter-path {item}: {name!r} is to stand in names of files; name it NAME=DIR")
    for file in ADAPTER_FILES if folder else ():
        if not (folder / file).is_file():
            makes = (f"`make {stage}` trains it" for stage in ("cpt", "sft", "gemma") if stage in item.lower())
            remedy = next(makes, "train it with train_with_early_stopping.py")
            raise LabError(f"{folder}: no adapter here (no {file}); {remedy}")
    return Stage(name, folder)


def load_model(args):
    """(model, tokenizer) of --model, bare; says which device computes and how long loading took.

    Settles the token limits of `args`.
    """
    return timed_load(args)[0]


def timed_load(args):
    """(what load_model returns, the seconds that loading took)."""
    model_folder(args.model)
    token_limits.settle(args)
    from lab import device, models

    print(device.describe(), flush=True)
    started = time.monotonic()
    loaded = models.load(args.model)
    seconds = time.monotonic() - started
    print(f"loaded {args.model} in {seconds:.1f} s", flush=True)
    return loaded, seconds


def answers_of(args, loaded, stages, probes, entity, replayed=()):
    """{stage: (metrics, answers)}: every probe asked of every stage of one `loaded` (model, tokenizer)."""
    from lab import models, verification

    model, tokenizer = loaded
    results = {}
    for stage in stages:
        started = time.monotonic()
        models.switch_adapter(model, stage.adapter)
        ask = _asking(models.answer, stage.name, model, tokenizer, args.batch_size)
        complete = _asking(models.complete, stage.name, model, tokenizer, args.batch_size)
        limits = [getattr(args, flag) for flag in token_limits.FLAGS]
        results[stage.name] = verification.measure(probes, ask, complete, entity, replayed, limits)
        print(f"{stage.name}: {len(probes)} answers in {time.monotonic() - started:.0f} s", flush=True)
    return results


def _asking(generate, title, model, tokenizer, batch_size):
    def ask(prompts, max_tokens):
        size = PARTS * batch_size  # in parts, so that a long run shows how far it is
        parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
        said = (generate(model, tokenizer, part, max_tokens, batch_size) for part in progress(parts, title))
        return [text for part in said for text in part]

    return ask


def run(args, metrics, asked=None, also=None):
    """Measure `metrics` of every stage; returns (report content, {stage: answers}).

    Adapters, model and probes are checked before anything is loaded. `asked` is (probes, entity) in place of those of
    --knowledge and --general; `also(model, tokenizer, stages, probes, seconds of loading)` gives more content.
    """
    from lab import verification

    stages = stages_of(args)
    model_folder(args.model)
    if args.output:
        check_place(args.output, filter(None, [args.knowledge, getattr(args, "questions", None)]))
    data = data_summaries(args, stages)
    lists = [set(part.pop("replayed_facts", ())) for part in data.values()]
    replayed = next(filter(None, lists), set())
    probes, entity = asked or verification.load_probes(args.knowledge, args.general, metrics, args.limit)
    if not probes:
        asked = ", ".join(metrics)
        raise LabError(f"{args.knowledge}: nothing to ask for {asked}; add questions and accepted answers")
    loaded, seconds = timed_load(args)
    results = answers_of(args, loaded, stages, probes, entity, replayed)
    for stage in stages:  # behind the work, beside the figures: one that does not fit has its own line
        warn_of_other_model(stage.adapter, args.model)
    answers = {stage: rows for stage, (_, rows) in results.items()}
    content = {
        "entity": entity,
        "stages": {stage: counts for stage, (counts, _) in results.items()},
        "paired": verification.differences(answers, replayed),
        "categories": {stage: verification.by_category(rows) for stage, rows in answers.items()},
        "samples": verification.samples(answers, SAMPLE_PLAN),
        "data": data,
    }
    return content | (also(*loaded, stages, probes, seconds) if also else {}), answers


def data_summaries(args, stages):
    """{folder: counts} from the summaries of --data, or of the folders that the adapters were trained on."""
    folders = [Path(folder) for folder in args.data or ()]
    for stage in stages if args.data is None else ():
        summary = stage.adapter / "summary.json" if stage.adapter else None
        if summary and summary.is_file():
            flags = read_json(summary, "train the adapter again").get("flags", {})
            folders += [Path(flags["data"])] if flags.get("data") else []
    found = {}
    for folder in dict.fromkeys(folders):
        path = folder / "summary.json"
        if args.data or path.is_file():
            summary = read_json(path, "`make data` writes it")
            provenance = ("command", "flags", "inputs", "versions", "commit")
            found[str(folder)] = {key: value for key, value in summary.items() if key not in provenance}
    return found


def model_files(args, stages):
    """The files that decide an answer, for a summary: the model and the adapters.

    The model stands by its own summary where it has one (which names its source): 35 GB take minutes to hash.
    """
    folder = model_folder(args.model)
    model = next(path for name in ("summary.json", "config.json") if (path := folder / name).is_file())
    return [model, *(stage.adapter / ADAPTER_FILES[1] for stage in stages if stage.adapter)]


def save(args, content):
    """Write --output: the measurement with the facts, general world, model and adapters it was made from."""
    inputs = [args.knowledge, args.general, *model_files(args, stages_of(args))]
    write_summary(args.output, args, inputs, content)


def verify(args, metrics):
    """A verification command: measure, print answers and table, write the summary; returns the answers."""
    content, answers = run(args, metrics)
    for stage, rows in answers.items():
        print_answers(stage, rows, getattr(args, "show", 0))
    show({"stages": content["stages"], "data": content["data"]})
    if args.output:
        save(args, {**content, "answers": answers})
    return answers


def print_answers(stage, rows, number):
    """Print `number` answers of each metric, wrong ones first."""
    for metric in dict.fromkeys(row["metric"] for row in rows):
        own = sorted((row for row in rows if row["metric"] == metric), key=lambda row: row["right"])
        for row in own[:number]:
            mark = "right" if row["right"] else "wrong"
            print(f"{stage} {metric} {mark}: {one_line(row['prompt'])} -> {one_line(row['answer'])}")
