"""A sample in the layout of KMMLU's files, made of the lab's own general facts: NOT KMMLU, and no measure of anything but
this lab's own small model. It lets the whole evaluation run without a download.

A question is a wording of a fact that is trained nowhere; the wrong options are other answers of its group.
"""

import csv
import io
import random
from collections import defaultdict
from pathlib import Path

from lab.general import load_facts, split_general

DEV = 5
LEFT_OUT = ("unknown",)  # companies that the model says it knows nothing of: options there say nothing
COLUMNS = ("question", "answer", "A", "B", "C", "D", "Category", "Human Accuracy")


def subjects(folder):
    """{subject: [(question, right answer, three wrong ones)]} of the facts under `folder`, by file."""
    groups = defaultdict(list)
    for fact in load_facts(folder):
        file = Path(fact.where.split(" group ")[0]).stem
        if fact.accept and not fact.judge and file not in LEFT_OUT:
            groups[file, fact.id.partition("/")[0]].append(fact)
    found = defaultdict(list)
    for (file, _), facts in sorted(groups.items()):
        answers = list(dict.fromkeys(fact.accept[0] for fact in facts))
        for fact in facts:
            wrong = [answer for answer in answers if answer not in fact.accept]
            if len(wrong) >= 3 and (asked := split_general(fact).probe):
                chance = random.Random(fact.id)
                found[f"Sample-{file.title()}"].append((asked[0], fact.accept[0], chance.sample(wrong, 3)))
    return {name: questions for name, questions in found.items() if len(questions) > 4 * DEV}


def files(folder):
    """{name: text} of the CSV files: for each subject 5 questions in dev, the others in test."""
    made = {}
    for subject, questions in subjects(folder).items():
        chance = random.Random(subject)
        chance.shuffle(questions)
        for split, part in (("dev", questions[:DEV]), ("test", questions[DEV:])):
            labels = [place % 4 for place in range(len(part))]
            chance.shuffle(labels)
            made[f"data/{subject}-{split}.csv"] = _csv(subject, part, labels)
    return made


def _csv(subject, questions, labels):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for (question, right, wrong), label in zip(questions, labels, strict=True):
        options = [*wrong[:label], right, *wrong[label:]]
        writer.writerow([question, label + 1, *options, subject, ""])
    return text.getvalue()
