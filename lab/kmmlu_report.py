"""What an evaluation says: counts with intervals, letters picked beside the true ones, differences between stages.

A stage's content: {"micro": counted, "macro": {"share", "low", "high", "subjects"}, "subjects", "groups": {name: counted},
"letters": {letter: times picked}, "answers": {letter: times right}, "warning": None or words}. Shares are from 0 to 1.
"""

import math
import sys
from collections import Counter
from itertools import combinations

from lab.report import cell, draw_table
from lab.stats import counted, paired

ONE_LETTER = 0.9  # share of items in which a model that picks one letter is called out


def content(rows_of_stages, subset, human=None):
    """{"stages": ..., "paired": ...} of {stage: rows}; `human` is people's share, where it is known."""
    stages = {stage: of_stage(rows, subset) for stage, rows in rows_of_stages.items()}
    pairs = []
    for first, second in combinations(rows_of_stages, 2):
        right = [{row["id"]: row["right"] for row in rows_of_stages[stage]} for stage in (first, second)]
        ids = sorted(right[0])
        compared = paired(*([own[each] for each in ids] for own in right))
        pairs.append({"first": first, "second": second, **compared})
    found = {"chance": subset.task.chance, "stages": stages, "paired": pairs}
    return {**found, "human": human} if human is not None else found


def of_stage(rows, subset):
    """A stage's content, as above."""
    by_subject = {subject: [row for row in rows if row["subject"] == subject] for subject in subset.subjects}
    counts = {subject: _count(own) for subject, own in by_subject.items() if own}
    groups = {}
    for name, subjects in subset.groups.items():
        groups[name] = _count([row for subject in subjects for row in by_subject.get(subject, ())])
    letters, answers = (Counter(row[key] for row in rows) for key in ("picked", "label"))
    return {
        "micro": _count(rows),
        "macro": macro(list(counts.values())),
        "subjects": counts,
        "groups": groups,
        "letters": {letter: letters[letter] for letter in subset.task.letters},
        "answers": {letter: answers[letter] for letter in subset.task.letters},
        "warning": warning(letters),
    }


def _count(rows):
    return counted(sum(row["right"] for row in rows), len(rows))


def macro(counts):
    """The mean of the subjects' shares, each subject weighing the same, with its 95 % interval.

    Source: Zou and Donner, Statistics in Medicine 27 (2008) 1693-1702: the distances of each share to its Wilson bounds,
    squared and added.
    """
    shares = [count["correct"] / count["n"] for count in counts]
    below = math.sqrt(sum((share - count["low"]) ** 2 for share, count in zip(shares, counts, strict=True)))
    above = math.sqrt(sum((count["high"] - share) ** 2 for share, count in zip(shares, counts, strict=True)))
    number = len(counts)
    mean = sum(shares) / number
    bounds = {"low": max(0.0, mean - below / number), "high": min(1.0, mean + above / number)}
    found = {"share": mean, **bounds}
    return {**{key: round(value, 4) for key, value in found.items()}, "subjects": number}


def warning(letters):
    """Words for a model that picks one letter nearly always, or None; `letters` is {letter: times picked}."""
    letter, times = max(letters.items(), key=lambda pair: pair[1])
    share = times / sum(letters.values())
    return f"answers {letter} in {100 * share:.0f} % of items" if share >= ONE_LETTER else None


def verdict(pair):
    """A paired difference in words: "cpt - base: -1.2 points [-3.0, +0.6], p = 0.3: a loss of more than 3.0 points ..."."""
    low, high = 100 * pair["low"], 100 * pair["high"]
    figures = f"{100 * pair['difference']:+.1f} points [{low:+.1f}, {high:+.1f}], p {_p(pair['p'])}"
    if low > 0:
        words = f"better, by {low:.1f} points or more"
    elif high < 0:
        words = f"worse, by {-high:.1f} points or more"
    else:
        words = f"no difference shown; a loss of more than {abs(low):.1f} points is excluded"
    return f"{pair['second']} - {pair['first']}: {figures}: {words}"


def _p(value):
    return "below 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.1 else f"= {value:.2f}"


def tables(report):
    """The report's tables as lists of lines, each a list of strings; the first line is the header."""
    stages = report["stages"]
    first = next(iter(stages.values()))
    chance = f"{100 * report['chance']:.0f} %"

    def line(name, get):
        return [name, *(cell(get(stage)) for stage in stages.values()), chance]

    subjects = [["subject", *stages, "chance"]]
    subjects += [line(name, lambda stage, name=name: stage["subjects"][name]) for name in first["subjects"]]
    overall = [["score", *stages, "chance"], line("all items (micro)", lambda stage: stage["micro"])]
    overall.append(
        ["mean of subjects (macro)", *(_macro_cell(stage["macro"]) for stage in stages.values()), chance]
    )
    overall += [line(name, lambda stage, name=name: stage["groups"][name]) for name in first["groups"]]
    letters = [["letter", "right", *(f"{stage} picks" for stage in stages)]]
    for letter, right in first["answers"].items():
        letters.append([letter, str(right), *(str(stage["letters"][letter]) for stage in stages.values())])
    return [table for table in (subjects, overall, letters) if len(table) > 1]


def _macro_cell(value):
    share, low, high = (100 * value[key] for key in ("share", "low", "high"))
    return f"{value['subjects']} subjects  {share:.1f} % [{low:.0f}-{high:.0f}]"


def show(report, file=None):
    """Print a report: subjects, groups, letters, warnings, differences; drawn on a terminal, aligned text elsewhere."""
    file = file or sys.stdout
    if report.get("sample"):
        print(
            f"{report['source']}: a sample made by this lab, NOT KMMLU; its scores compare with nothing", file=file
        )
    for table in tables(report):
        draw_table(table, file)
        print(file=file)
    for stage, found in report["stages"].items():
        if found["warning"]:
            print(f"warning: {stage} {found['warning']}: its score says little about what it knows", file=file)
    if "human" in report:
        print(f"people who took these exams: {100 * report['human']:.1f} %", file=file)
    for pair in report["paired"]:
        print(verdict(pair), file=file)
