"""What cleaning did, for a person: a short table on the terminal and cleaning.md, both out of the summary's content."""

import re

from lab.cleaning import STEPS
from lab.corpus import REASONS
from lab.splits import PARTS

MARKS = str.maketrans({"|": "\\|", "\n": "⏎", "\r": "⏎", "\t": "⇥", "`": "'"})


LOOSE = re.compile("[\u0300-\u036f\u1100-\u11ff]")  # parts of a letter, which would look composed
COUNTED = ("train", "valid", "test", "recall", "company", "several_turns", "replay")


def lines(source, folder, results):
    """The short table: what was written, and a line for each step that changed a text or dropped a row."""
    cleaning, dropped = results["cleaning"], results.get("dropped", {})
    found = [
        (step["changed"], f"texts: {STEPS[name]}") for name, step in cleaning["steps"].items() if step["changed"]
    ]
    found += [(count, f"rows dropped: {REASONS[name]}") for name, count in dropped.items() if count]
    width = max((len(f"{count:,}") for count, _ in found), default=1)
    written = ", ".join(f"{name.replace('_', ' ')} {results[name]:,}" for name in COUNTED if results.get(name))
    read = f"{results['rows']:,} rows" if "rows" in results else f"{results['facts']:,} facts"
    guard = ", leaks 0" if "leak_guard" in results else ""
    table = [f"  {count:>{width},} {words}" for count, words in found] or ["  nothing to clean"]
    return [f"{source}: {read}", *table, f"{folder}: {written}{guard}; {folder / 'cleaning.md'} shows each step"]


def markdown(source, results):
    """The text of cleaning.md."""
    cleaning, dropped = results["cleaning"], results.get("dropped")
    parts = ", ".join(f"{name} {results[name]:,}" for name in PARTS)
    text = [f"# Cleaning of {source}", "", f"{cleaning['texts']:,} texts looked at. Rows written: {parts}.", ""]
    text += ["| step | texts changed | first example: before | after | where |", "|---|---:|---|---|---|"]
    for name, step in cleaning["steps"].items():
        cells = [_cell(step[key]) if key in step else "" for key in ("before", "after", "where")]
        text.append(f"| {STEPS[name]} | {step['changed']:,} | {' | '.join(cells)} |")
    text += [
        "",
        "⏎ stands for a new line, · for where a letter's parts were not one. Code (``` fences, `backticks`) loses only control characters.",
        "",
    ]
    if dropped is not None:
        text += [
            "| dropped because | rows | first example | line | for the sake of line |",
            "|---|---:|---|---:|---:|",
        ]
        for name, count in dropped.items():
            row = results["dropped_examples"].get(name, {})
            cells = [_cell(row.get("text", "")), str(row.get("line", "")), str(row.get("first_line", ""))]
            text.append(f"| {REASONS[name]} | {count:,} | {' | '.join(cells)} |")
        text += [
            "",
            "dropped.jsonl lists every one. Of equal rows, and of a question with several answers, the first stays.",
        ]
    return "\n".join(text) + "\n"


def _cell(text):
    text = LOOSE.sub(r"\g<0>·", text.translate(MARKS))
    seen = (letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
    return f"`{''.join(seen)}`" if text else ""
