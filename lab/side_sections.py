"""The report's sections on the side rooms: claims, forgetting, KMMLU; each says what to run where it was not run."""

from lab import bars, differences, pictures
from lab.page import Cell, Section, Table
from lab.report import METRICS, cell, label, rows
from lab.sections import compared, difference

NOT_KMMLU = "A sample made by the lab, not KMMLU: its figures say nothing of the published benchmark."
WHOLE = "all questions"
A_PICTURE = 15  # subjects; more would not fit on a printed page


def claims(content, changed=()):
    """What was claimed, what became of it, and by which figures; `changed` are files that are others since it was judged."""
    title = "Claims"
    if content is None:
        return Section("claims", title, missing="make claims")
    lines = []
    for claim in content["claims"]:
        figures = [
            f"{'given: ' if one.get('given') else ''}{one['text']} ({one['verdict']})" for one in claim["figures"]
        ]
        todo = [f"to measure it: {', '.join(claim['make'])}"] if claim.get("make") else []
        doubt = [f"doubted for this profile: {claim['doubted']}"] if claim.get("doubted") else []
        note = [claim["note"]] if claim.get("note") else []
        said = Cell("\n".join([*figures, *note, *todo, *doubt]), prose=True)
        text = Cell(f"{claim['claim']}\n{claim.get('claim_ko', '')}".strip(), prose=True)
        lines.append(
            [text, Cell(claim["verdict"], claim["verdict"]), said, Cell(claim.get("seed", ""), prose=True)]
        )
    bounds = content.get("flags", {}).get("claims", "configs/claims.yaml")
    tally = ", ".join(f"{verdict} {number}" for verdict, number in content["counts"].items())
    text = f"What the seed found, and whether this run bears it out: {tally}. Bounds: {bounds}."
    note = "A claim holds, or does not, where the 95 % interval leaves no doubt, and is undecided where that "
    note += "straddles the bound or what is given does not hold. No correction for the number of claims."
    table = Table("Claims", ["claim", "verdict", "by these figures", "in the seed"], lines, note)
    stale = f"Judged before {', '.join(changed)} changed or came: run `make claims` again." if changed else ""
    return Section("claims", title, [text], [table], warning=stale)


def forgetting(content, no_replay):
    """What is learnt and lost at each share of general rows, and the stages beside SFT without any."""
    title, without = "Forgetting and replay", []
    if no_replay is not None:
        without = [Table("SFT with and without general rows", *_stage_table(no_replay["stages"]))]
        without += _with_the_last(no_replay)
    if content is None:
        return Section("forgetting", title, tables=without, missing="make forgetting")
    content = content | {"points": sorted(content["points"], key=_order)}
    metrics = [metric for metric in METRICS if any(metric in point["metrics"] for point in content["points"])]
    lines = [["base model", "-", "-", *(cell(content["base"].get(metric)) for metric in metrics)]]
    for point in content["points"]:
        name = f"{point['name']}, the default" if point["name"] == content["default"] else point["name"]
        own = [f"{point['replay']}, {100 * point['ratio']:.0f} %", _rows(point.get("rows"))]
        lines.append([name, *own, *(cell(point["metrics"].get(metric)) for metric in metrics)])
    head = ["point", "replay", "rows", *(label(metric) for metric in metrics)]
    picture = pictures.forgetting("forgetting", "What replay keeps, with 95 % intervals", content)
    note = "Replay is the share of general rows among the training rows; self: answers that the base model wrote itself, "
    note += "drawn a little to the right."
    texts = [content["verdict"]] if isinstance(content.get("verdict"), str) else []
    tables = [Table("Points", head, lines, note), *_beside_the_best(content), *without]
    return Section("forgetting", title, texts, tables, [picture])


def _order(point):
    return point["replay"] == "self", point["ratio"]


def _beside_the_best(content):
    """A list of the table of every point's difference from the best in a metric, or of none."""
    names, lines = [point["name"] for point in content["points"]], []
    for metric, pairs in (content.get("paired") or {}).items():
        found = {pair["second"]: difference(pair) for pair in pairs}
        found |= {pair["first"]: "the best" for pair in pairs}
        named = "glasses (answers free of the company)" if metric == "glasses" else metric
        lines.append([named, *(found.get(name, "-") for name in names)])
    note = (
        "Points: the share less that of the metric's best point, on the same questions; Newcombe's 95 % interval, "
    )
    note += "McNemar's p; * marks an interval that leaves out 0. No correction for the number of comparisons; one run a point."
    return [Table("Beside the best point", ["metric", *names], lines, note)] if lines else []


def _with_the_last(report):
    """A list of the table of the last stage's differences from the others, or of none."""
    last = list(report["stages"])[-1]
    own = {
        metric: [pair for pair in pairs if last in (pair["first"], pair["second"])]
        for metric, pairs in report.get("paired", {}).items()
    }
    return [compared(own)] if any(own.values()) else []


def _stage_table(stages):
    head, *lines = rows(stages)
    return head, lines


def _rows(counts):
    return ", ".join(f"{name} {number}" for name, number in counts.items()) if isinstance(counts, dict) else "-"


def kmmlu(content):
    """Accuracy of each stage by group and subject beside chance, the letters chosen, and the paired statements."""
    if content is None:
        return Section("kmmlu", "KMMLU", missing="make kmmlu")
    found, chance = content["stages"], content["chance"]
    shots, chat = content.get("shots", 0), "in the chat template" if content.get("chat") else "as plain text"
    limit = content.get("flags", {}).get("limit")
    part = f", the first {limit} items of each subject" if limit else ""
    texts = [
        f"{content['task']}, {shots} shots, {chat}, from {content['source']}{part}; chance {100 * chance:g} %."
    ]
    texts += [f"{stage}: {value['warning']}" for stage, value in found.items() if value.get("warning")]
    title = "KMMLU" if content["task"] == "kmmlu" else f"{content['task']}"
    warning = NOT_KMMLU if content.get("sample") else ""
    tables = [*_compared(content.get("paired")), *_tables(found)]
    return Section("kmmlu", title, texts, tables, _pictures(content), warning=warning)


def _pictures(content):
    found, lines = content["stages"], {"chance": content["chance"]}
    people = {"people": content["human"]} if type(content.get("human")) in (int, float) else {}
    groups, subjects = _lines(found, "groups"), _lines(found, "subjects")[1:]
    reach = bars.reach_of(groups, lines | people)
    drawn = [bars.bars("kmmlu-groups", "Accuracy by group", groups, lines | people, reach)]
    if any(value.get("letters") for value in found.values()):
        drawn.append(bars.letters("kmmlu-letters", "Letters chosen", found))
    parts = [subjects[start : start + A_PICTURE] for start in range(0, len(subjects), A_PICTURE)]
    for number, part in enumerate(parts if len(subjects) > 1 else (), 1):
        title = "Accuracy by subject" + (f", {number} of {len(parts)}" if len(parts) > 1 else "")
        drawn.append(bars.bars(f"kmmlu-subjects-{number}", title, part, lines, bars.reach_of(subjects, lines)))
    return drawn


def _compared(pairs):
    """A list of the table of paired differences, or of none."""
    lines = []
    for pair in pairs or []:
        counts = [f"{pair[key]:,}" for key in ("n", "only_first", "only_second")]
        lines.append(
            [f"{pair['first']} → {pair['second']}", differences.cell(pair), differences.chance(pair), *counts]
        )
    head = [
        "stages",
        "difference in points",
        "McNemar",
        "questions",
        "right in the first only",
        "in the second only",
    ]
    note = "The second stage's share less the first's on the same questions, with Newcombe's 95 % interval; * leaves out 0."
    return [Table("Paired differences", head, lines, note)] if lines else []


def _tables(found):
    named = list(found)
    lines = [[name, *(cell(values.get(stage)) for stage in named)] for name, values in _lines(found, "groups")]
    macro = [value.get("macro") for value in found.values()]
    if all(isinstance(value, dict) and isinstance(value.get("share"), (int, float)) for value in macro):
        lines.insert(1, ["mean of the subjects (macro)", *map(_macro, macro)])
    tables = [
        Table(
            "Accuracy", ["group", *named], lines, "All questions is the micro average, each question counted once."
        )
    ]
    if subjects := _lines(found, "subjects")[1:]:
        lines = [[name, *(cell(values.get(stage)) for stage in named)] for name, values in subjects]
        tables.append(Table("Accuracy by subject", ["subject", *named], lines))
    if letters := _letters(found):
        tables.append(letters)
    return tables


def _macro(value):
    text = f"{100 * value['share']:.1f} %"
    bounds = [value.get(key) for key in ("low", "high")]
    return text + (f" [{100 * bounds[0]:.0f}-{100 * bounds[1]:.0f}]" if None not in bounds else "")


def _letters(found):
    true = next((value["answers"] for value in found.values() if value.get("answers")), {})
    chosen = {stage: value["letters"] for stage, value in found.items() if value.get("letters")}
    names = sorted({letter for counts in (*chosen.values(), true) for letter in counts})
    lines = [[letter, *(str(counts.get(letter, 0)) for counts in (*chosen.values(), true))] for letter in names]
    return Table("Letters chosen", ["letter", *chosen, "true answers"], lines) if chosen else None


def _lines(found, part):
    """[(name, {stage: counted})]: all questions, then every group or subject that some stage was asked."""
    names = list(dict.fromkeys(name for value in found.values() for name in value.get(part, {})))
    whole = {stage: value["micro"] for stage, value in found.items()}
    parts = [
        (name, {stage: value[part][name] for stage, value in found.items() if name in value.get(part, {})})
        for name in names
    ]
    return [(WHOLE, whole), *parts]
