"""Reports of the stages: what a report file must hold, and the table made of it. Reads JSON, never printed
text.

A report is {"profile", "entity", "stages": {stage: {metric: {"correct", "n", "low", "high"}}}, "paired", "samples",
"data", ...}; shares are from 0 to 1, `low` and `high` the 95 % Wilson interval. "paired" is as lab.differences has it.
"""

import sys
import unicodedata

from lab import differences
from lab.cli import LabError, afresh, read_json

METRICS = {  # metric: what it counts, in the order of the table
    "identity": "says it is HyperCLOVA X by NAVER",
    "completion": "finishes the company's sentences",
    "recall": "answers company questions, trained wordings",
    "recall_paraphrase": "the same in wordings never trained",
    "general": "answers general questions in wordings never trained",
    "general_mixed": "of these, facts that SFT replays",
    "general_unmixed": "of these, facts that SFT does not replay",
    "glasses": "general answers that speak of the company; fewer is better",
    "mab_ts": "bandit programs that run and find the best arm",
    "questions": "answers questions of your own (--questions)",
}
FEWER_IS_BETTER = ("glasses",)
MARKS = {True: "+", False: "-", None: " "}  # right, wrong, not judged
REMEDY = "`make verify` writes it"
ANSWER_CELLS = 100  # cells of an answer shown; a Hangul syllable takes two


def read_report(path, remedy=REMEDY):
    """The report in a JSON file. Raises LabError, naming file, metric and `remedy`, when it is missing or malformed."""
    report = read_json(path, remedy)
    remedy = afresh(remedy)
    stages = report.get("stages") if isinstance(report, dict) else None
    if not isinstance(stages, dict) or not stages:
        raise LabError(f"{path}: holds no stages, so it is no report; {remedy}")
    for stage, metrics in stages.items():
        if not isinstance(metrics, dict):
            raise LabError(f"{path}: stage {stage}: holds {metrics!r}, not metrics; {remedy}")
        for metric, value in metrics.items():
            if metric not in METRICS:
                known = ", ".join(METRICS)
                raise LabError(f"{path}: stage {stage}: unknown metric {metric!r}; known: {known}")
            check_counted(f"{path}: stage {stage}: metric {metric}", value, remedy)
    differences.check(path, report.get("paired", {}), METRICS, remedy)
    return report


def check_counted(where, value, remedy=REMEDY):
    """Raise LabError at `where` for what is not as lab.stats.counted makes it."""
    counts = [value.get(key) if isinstance(value, dict) else None for key in ("correct", "n")]
    bounds = [value.get(key) if isinstance(value, dict) else None for key in ("low", "high")]
    if not all(type(count) is int for count in counts) or not 0 <= counts[0] <= counts[1]:
        raise LabError(f'{where}: "correct" and "n" must be whole numbers, correct at most n; {remedy}')
    if not all(type(bound) in (int, float) and 0 <= bound <= 1 for bound in bounds):
        raise LabError(f'{where}: "low" and "high" must be shares from 0 to 1; {remedy}')


def cell(value):
    """A metric in words: "24/56  42.9 % [31-56]"; "-" where it was not measured."""
    if not value or not value["n"]:
        return "-"
    share, low, high = 100 * value["correct"] / value["n"], 100 * value["low"], 100 * value["high"]
    digits = 1 if value["n"] >= differences.MANY else 0
    return f"{value['correct']}/{value['n']}  {share:.1f} % [{low:.{digits}f}-{high:.{digits}f}]"


def rows(stages):
    """The table as lists of strings: a header, then a row for each metric that some stage has."""
    measured = [metric for metric in METRICS if any(metric in values for values in stages.values())]
    names = [label(metric) for metric in measured]
    cells = [[cell(values.get(metric)) for values in stages.values()] for metric in measured]
    return [["metric", *stages], *([name, *line] for name, line in zip(names, cells, strict=True))]


def label(metric):
    """A metric's name as tables show it."""
    return f"{metric} (fewer is better)" if metric in FEWER_IS_BETTER else metric


def show(report, file=None):
    """Print a report: table, sample answers, data counts; drawn on a terminal, aligned text elsewhere."""
    file = file or sys.stdout
    draw = _draw_rich if file.isatty() else _draw_plain
    stages = list(report["stages"])
    table = rows(report["stages"])
    draw(table if len(table) > 1 else [], [], stages, file)  # nothing was judged: no table
    if report.get("paired"):
        print(f"\n{differences.LEGEND}", file=file)
        draw(differences.rows(report["paired"], label), [], stages, file)
    draw([], report.get("samples") or [], stages, file)
    for name, counts in (report.get("data") or {}).items():
        print(data_line(name, counts), file=file)


def data_line(name, counts):
    """A data folder's counts in a line: "data_solverx_sft: train 1080, valid 96, leaks 0"."""
    numbers = {key: value for key, value in counts.items() if isinstance(value, int) and value}
    plain = [f"{key.replace('_', ' ')} {value}" for key, value in numbers.items()]
    guard = counts.get("leak_guard") or {}
    leaks = [part.get(kind, 0) for part in guard.values() for kind in ("exact", "near")]
    return f"{name}: " + ", ".join([*plain, *([f"leaks {sum(leaks)}"] if guard else [])])


def answer_lines(sample, stages):
    """[(stage, mark, answer in a line)] of a sample; the mark is "+" right, "-" wrong, " " not judged."""
    lines = []
    for stage in stages:
        if said := sample["answers"].get(stage):
            shown = one_line(said.get("detail") or said["answer"])
            lines.append((stage, MARKS[said["right"]], shown))
    return lines


def one_line(text):
    """`text` on one line, cut to ANSWER_CELLS terminal cells."""
    text, used = " ".join(text.split()), 0
    for place, letter in enumerate(text):
        used += cells_of(letter)
        if used > ANSWER_CELLS:
            return text[:place] + " ..."
    return text


def cells_of(text):
    """The width of `text` in terminal cells."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def show_lines(table, file=None):
    """Print lines of cells, aligned."""
    widths = [max(map(cells_of, column)) for column in zip(*table, strict=True)]
    for line in table:
        padded = (text + " " * (width - cells_of(text)) for text, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip(), file=file)


def draw_table(table, file):
    """Draw lines of cells, the first a header, on a terminal; print them aligned elsewhere."""
    if not file.isatty():
        return show_lines(table, file)
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    grid = Table(*map(escape, table[0]))
    for line in table[1:]:
        grid.add_row(*map(Text, line))
    return _print_rich(grid, file)


def _print_rich(grid, file):
    from rich.console import Console

    Console(file=file).print(grid)


def _draw_plain(table, samples, stages, file):
    show_lines(table, file)
    width = max(map(len, stages))
    for sample in samples:
        print(f"\n{sample['metric']}: {one_line(sample['prompt'])}", file=file)
        for stage, mark, answer in answer_lines(sample, stages):
            print(f"  {stage:{width}} {mark} {answer}", file=file)
    if samples:
        print(file=file)


def _draw_rich(table, samples, stages, file):
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    if table:
        draw_table(table, file)
    if not samples:
        return
    grid = Table("question", *map(escape, stages), show_lines=True)
    for sample in samples:
        said = {stage: (mark, answer) for stage, mark, answer in answer_lines(sample, stages)}
        answers = (said.get(stage, ("", "")) for stage in stages)
        colours = {"+": "green", "-": "red"}
        styled = (Text(f"{mark} {answer}", style=colours.get(mark, "")) for mark, answer in answers)
        grid.add_row(Text(f"{sample['metric']}\n{one_line(sample['prompt'])}"), *styled)
    _print_rich(grid, file)
