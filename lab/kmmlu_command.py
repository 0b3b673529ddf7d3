"""What the KMMLU commands share: flags, data read before the model is loaded, the run, the summary."""

import argparse
import statistics
from dataclasses import asdict
from pathlib import Path

from lab import kmmlu, stages
from lab.cli import LabError, check_place, hashes, sha256, versions, write_summary
from lab.hub import model_folder
from lab.lineage import warn_of_other_model


def add_flags(parser, default):
    """The flags of a KMMLU command, whose model is `default` where none is named."""
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        default=default,
        help="folder of the (converted) model, or its id on the hub (%(default)s)",
    )
    add("--adapter-path", nargs="+", default=[stages.BASE], metavar="STAGE", help="base, DIR or NAME=DIR (base)")
    add(
        "--subset",
        nargs="+",
        default=["all"],
        metavar="NAME",
        help="subjects; STEM, HUMSS, 'Applied Science', Other; all (all)",
    )
    add(
        "--shots", type=int, choices=range(kmmlu.MOST_SHOTS + 1), default=0, help="few-shot examples (%(default)s)"
    )
    add("--limit", type=stages.count, help="at most so many items a subject, its first ones (all)")
    add("--chat", action="store_true", help="ask by the model's chat template (as plain text)")
    text = "with --chat, each example as turns of its own, as lm_eval does and mlx_lm.evaluate does not (yes)"
    add("--fewshot-as-multiturn", action=argparse.BooleanOptionalAction, default=True, help=text)
    text = "examples drawn anew for each question, as lm-eval does, or always the first of dev (%(default)s)"
    add("--fewshot-order", choices=[kmmlu.LM_EVAL, kmmlu.FIRST], default=kmmlu.LM_EVAL, help=text)
    add(
        "--fewshot-seed",
        type=int,
        default=kmmlu.SEED,
        help="of those draws; mlx_lm.evaluate has 123 (%(default)s)",
    )
    add("--data-dir", type=Path, metavar="DIR", help="folder with data/<Subject>-test.csv, instead of the hub")
    text = "branch, tag or commit on the hub (KMMLU: the commit in lab/kmmlu_subjects.yaml; HAE-RAE: main)"
    add("--revision", help=text)
    add("--batch-size", type=stages.count, default=32, help="questions at a time (%(default)s)")
    add("--output", type=Path, metavar="FILE.json", help="where the summary goes; the items beside it")


def evaluate(args):
    """Measure every stage of --adapter-path; print the tables, and write --output. Returns the report's content.

    Adapters, model and data are checked before anything is loaded.
    """
    found, (subset, files, subjects) = stages.stages_of(args), read(args)
    model_folder(args.model)
    if args.output:
        check_place(args.output)
    settings = {stage.name: settings_of(args, subset, files, stage) for stage in found}
    from lab import kmmlu_ask, kmmlu_report
    from lab.kmmlu_run import Items

    model, tokenizer = stages.load_model(args)

    def items_of(stage):
        return Items(items_path(args, stage), settings[stage.name])

    rows = kmmlu_ask.ask(model, tokenizer, found, subjects, items_of, args.batch_size)
    for stage in found:
        warn_of_other_model(stage.adapter, args.model)
    about = {"task": subset.task.name, "source": files.source, "sample": files.sample}
    about |= {"task_version": subset.task.version, **asdict(style_of(args))}
    report = {**about, **kmmlu_report.content(rows, subset, human_share(subjects))}
    kmmlu_report.show(report)
    if args.output:
        write_summary(args.output, args, inputs_of(args, files, found), report)
        print(f"summary: {args.output}; items: {args.output.with_name(f'{args.output.stem}_STAGE.jsonl')}")
    else:
        print("nothing written; --output FILE.json keeps the scores, the items, and what a stopped run has done")
    return report


def style_of(args):
    """How the items are asked."""
    turns, order = args.fewshot_as_multiturn, args.fewshot_order
    return kmmlu.Style(args.shots, args.chat, turns, order, args.fewshot_seed)


def read(args):
    """(Subset, Files, [Asked]) of --subset, from --data-dir or the hub, every row checked."""
    from lab import kmmlu_data

    sample = kmmlu_data.sample_subjects(args.data_dir) if args.data_dir else ()
    subset, style = kmmlu_data.choose(args.subset, sample), style_of(args)
    splits = ("test", "dev") if style.shots and subset.task.from_dev else ("test",)
    if args.data_dir and args.revision:
        raise LabError(f"--revision {args.revision}: {args.data_dir} is a folder, which has none; leave it out")
    if args.data_dir:
        files = kmmlu_data.in_folder(args.data_dir, subset, splits)
    else:
        from lab import kmmlu_hub

        files = kmmlu_hub.fetch(subset, splits, args.revision)
    items = {key: kmmlu_data.read_items(path, subset.task, key[0]) for key, path in files.paths.items()}
    number = sum(len(items[name, "test"]) for name in subset.subjects)
    print(f"{files.source}: {len(subset.subjects)} subjects, {number} items", flush=True)
    if warning := unlike_published(subset, number):
        print(f"warning: {files.source}: {warning}", flush=True)
    return subset, files, [_asked(subset.task, name, items, style, args.limit) for name in subset.subjects]


def unlike_published(subset, number):
    """Words where `number` test items of all subjects of KMMLU are not as many as were published, else None."""
    from lab.kmmlu_data import listing

    known = listing()
    if subset.subjects != tuple(known.subjects) or number == known.test_items:
        return None
    return f"KMMLU has {known.test_items} test items, here are {number}: published scores do not compare"


def _asked(task, subject, items, style, limit):
    test = items[subject, "test"]
    pool = items.get((subject, "dev"), ()) if task.from_dev else test
    return kmmlu.Asked(task, subject, test[:limit], kmmlu.examples(task, test[:limit], pool, style), style)


def settings_of(args, subset, files, stage):
    """{label: value} of all that decides a stage's figures."""
    from lab.device import computes_in_float32
    from lab.fingerprint import of_the_model

    found = {"task": f"{subset.task.name} {subset.task.version}", "subset": list(subset.subjects)}
    found |= asdict(style_of(args)) | {"limit": args.limit, "batch_size": args.batch_size}
    found |= {f"data {subject} {split}": sha256(path) for (subject, split), path in files.paths.items()}
    found |= of_the_model(args.model)
    for name in stages.ADAPTER_FILES if stage.adapter else ():
        found[f"adapter {name}"] = sha256(stage.adapter / name)
    return found | {
        "float32": computes_in_float32(),
        **{f"version {name}": each for name, each in versions().items()},
    }


def items_path(args, stage):
    """Where a stage's items go: kmmlu.json -> kmmlu_base.jsonl; None without --output."""
    return args.output.with_name(f"{args.output.stem}_{stage.name}.jsonl") if args.output else None


def inputs_of(args, files, found):
    """{file: sha256} of the data, the model (by its summary) and the adapters."""
    return hashes([*files.paths.values(), *stages.model_files(args, found)])


def human_share(subjects):
    """The mean over all items of the share of people who got it right, or None where some item lacks it."""
    shares = [item.human for asked in subjects for item in asked.items]
    return None if None in shares else round(statistics.fmean(shares), 4)
