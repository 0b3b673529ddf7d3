"""The report's sections on the stages themselves: figures and differences, training, answers, data, provenance."""

import shlex

from lab import differences, pictures
from lab.page import Cell, Section, Table
from lab.report import METRICS, label, rows

GREEDY = (
    "Cells are right/asked, the share in percent and its 95 % Wilson interval; answers are greedy. "
    "Intervals take questions as independent, though several may ask for one fact."
)
NOT_COUNTS = ("leak_guard", "finished")
SWITCHES = ("quantize", "fewshot_as_multiturn")  # flags of every command that are on unless --no-... is given


def stages(report):
    """Every metric of every stage, and the differences of the stages on the same probes."""
    head, *body = rows(report["stages"])
    metrics = [metric for metric in METRICS if any(metric in values for values in report["stages"].values())]
    lines = [
        [name, *cells, Cell(METRICS[metric], prose=True)]
        for (name, *cells), metric in zip(body, metrics, strict=True)
    ]
    tables = [Table("What each stage can do", [*head, "counts"], lines, GREEDY)]
    if paired := report.get("paired"):
        tables.append(compared(paired))
        return Section("stages", "Stages", tables=tables)
    text = (
        "This report has no paired differences: an earlier version measured it. Remove it and run `make verify`."
    )
    return Section("stages", "Stages", [text], tables)


def compared(paired):
    """The table of the differences in `paired`, a column for each pair of stages."""
    columns = differences.names(paired)
    lines = []
    for metric, pairs in paired.items():
        found = (differences.find(pairs, *column) for column in columns)
        lines.append([label(metric), *(difference(pair) for pair in found)])
    note = "Points: the second stage's share less the first's on the same probes; Newcombe's 95 % interval, McNemar's p. "
    note += "* marks an interval that leaves out 0. No correction for the number of comparisons."
    return Table("Paired differences", ["metric", *(f"{one} → {other}" for one, other in columns)], lines, note)


def difference(pair):
    """A comparison with its p-value in words."""
    return f"{differences.cell(pair)}, {differences.chance(pair)}" if pair and pair["n"] else "-"


def training(curves):
    """The training curves: `curves` is {stage: (folder, summary, rows)}."""
    drawn, lines = [], []
    for number, (stage, (folder, summary, points)) in enumerate(curves.items()):
        title = f"{stage}: loss while training"
        drawn.append(pictures.curve(f"curve-{number}", title, summary, points))
        lines.append([stage, *_training_cells(summary, points), str(folder)])
    if not curves:
        return Section("training", "Training", missing="make sft")
    head = "stage|updates|ended|kept|validation loss there|general text|rate|batch|folder".split("|")
    note = "Losses are means over trained tokens, in nats/token. The adapter of the best evaluation is kept, not the last."
    return Section("training", "Training", tables=[Table("Training runs", head, lines, note)], pictures=drawn)


def _training_cells(summary, points):
    """updates, how it ended, the update that was kept, its loss, the guard's words, rate and batch."""
    flags, loss = summary.get("flags", {}), summary.get("best_valid_loss")
    why = {"patience": "no better for long enough", "forgetting": "forgot too much"}.get(summary.get("stopped_by"))
    ended = f"early: {why}" if why else "early" if summary.get("stopped_early") else "as planned"
    limit = pictures.guard_limit(summary, points)
    given = flags.get("lr_schedule") or ""
    schedule = given if isinstance(given, str) else given["name"]
    rate = f"{flags['learning_rate']:g}" if flags.get("learning_rate") is not None else "-"
    return [
        *(str(summary.get("iterations", "-")), ended, str(summary.get("best_iteration", "-"))),
        f"{loss:.4f}" if loss is not None else "-",
        f"limit {limit:.3f}" if limit is not None else "no guard",
        f"{rate} {schedule}".strip(),
        str(flags.get("batch_size", "-")),
    ]


def answers(report, every="answers_STAGE.jsonl holds them all."):
    """The same questions answered by every stage, side by side, right and wrong told by sign and word.

    `every` says where the other answers are.
    """
    named, lines = list(report["stages"]), []
    for sample in report.get("samples") or []:
        said = [sample["answers"].get(stage) for stage in named]
        lines.append([Cell(f"{sample['metric']}: {sample['prompt']}", prose=True), *map(_answer, said)])
    if not lines:
        return Section("answers", "Answers side by side", missing="make verify")
    note = (
        f"✓ right, ✗ wrong, as the metric's judge has it. A few of each metric, evenly spaced, not picked; {every}"
    )
    return Section(
        "answers",
        "Answers side by side",
        tables=[Table("One question, every stage", ["question", *named], lines, note)],
    )


def _answer(said):
    if not said:
        return "-"
    text = f"{said['answer']}\n({said['detail']})" if said.get("detail") else said["answer"]
    mark = {True: "right", False: "wrong", None: ""}[said["right"]]
    return Cell(text or "(nothing)", mark, prose=True)


def data(report):
    """Rows by kind, and what the leak guard compared and found."""
    counts, guards = [], []
    for folder, found in (report.get("data") or {}).items():
        whole = {key: value for key, value in found.items() if type(value) is int and key not in NOT_COUNTS}
        counts.append([folder, ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in whole.items())])
        for name, part in (found.get("leak_guard") or {}).items():
            cells = [part.get(key, "-") for key in ("kept", "trained", "exact", "near")]
            clean = Cell("none", "right") if cells[2:] == [0, 0] else Cell("leaks", "wrong")
            guards.append([f"{folder}: {name}", *map(str, cells), clean])
    if not counts:
        return Section("data", "Data and leak guard", missing="make data")
    tables = [Table("Rows", ["folder", "counts"], [[name, Cell(text, prose=True)] for name, text in counts])]
    if guards:
        note = "Exact: the same letters and digits. Near: trigram Jaccard 0.8 or more with an answer in common."
        head = ["comparison", "kept apart", "trained", "exact", "near", "leaks"]
        tables.append(Table("Leak guard", head, guards, note))
    return Section("data", "Data and leak guard", tables=tables)


def provenance(summaries):
    """Where every figure comes from: `summaries` is {file: content} of all JSON that the page was made of."""
    inputs, lines, commands = [], [], []
    for path, content in summaries.items():
        flags = content.get("flags", {})
        who = (content.get("command", "-"), str(flags.get("seed", "-")), content.get("commit", "-"))
        lines.append([str(path), *who])
        inputs += content.get("inputs", {}).items()
        commands += [command(content["command"], flags)] if content.get("command") else []
    inputs = list(dict.fromkeys(inputs))
    names = [name for name, _ in inputs]
    twice = sorted({name for name in names if names.count(name) > 1})
    warning = f"Not of one run: {', '.join(twice)} changed between the measurements." if twice else ""
    note = "commit+ is a checkout with changes that were not committed."
    tables = [
        Table("What the page was made of", ["file", "command", "seed", "commit"], lines, note),
        Table("Versions", ["package", "version"], _versions(summaries)),
        Table("Inputs", ["file or folder", "SHA-256"], inputs),
    ]
    text = "The commands, with flags and settings as recorded; settings that are tables stand in the configuration file."
    lines = "\n".join(dict.fromkeys(commands))
    return Section("provenance", "Provenance", [text], tables, commands=[lines] if lines else [], warning=warning)


def _versions(summaries):
    """[(package, version)]; where files were made with several, each with its files."""
    found = {}
    for path, content in summaries.items():
        for name, number in content.get("versions", {}).items():
            found.setdefault(name, {}).setdefault(number or "not installed", []).append(str(path))
    return [
        [name, Cell("\n".join(f"{number}: {', '.join(paths)}" for number, paths in made.items()), prose=True)]
        if len(made) > 1
        else [name, *made]
        for name, made in found.items()
    ]


def command(name, flags):
    """A command line that gives `flags` again; what is not set, and tables, are left out, SWITCHES put off."""
    words = ["python", name]
    for key, value in flags.items():
        off = value is False and key in SWITCHES
        if value in (None, []) or isinstance(value, dict) or (value is False and not off):
            continue
        words.append(f"--{'no-' if off else ''}{key.replace('_', '-')}")
        words += [
            str(item) for item in (value if isinstance(value, list) else [] if value is True or off else [value])
        ]
    return shlex.join(words)
