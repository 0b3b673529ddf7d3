"""Self-generated replay: which of the base model's own answers are fit to be trained again, and the file they stand in.

A row is {"messages": [user, assistant]} with "fact" (the general fact it asks for), "accept" (what makes an answer right)
and "judge" (for programs) where they are known. What the answer says is the base model's, right or wrong: the aim is to
keep the model as it was. Source of the idea: Huang et al., Mitigating Catastrophic Forgetting in Large Language Models
with Self-Synthesized Rehearsal, arXiv 2403.01244.
"""

import re

from lab.cli import LabError
from lab.dialogues import Turn
from lab.korean import comparable
from lab.leaks import NEAR, similarity, trigrams
from lab.probes import speaks_of
from lab.records import training_rows

REASONS = {  # why a row is left out, in the order in which it is looked for
    "empty": "no answer",
    "garbled": "it holds broken characters",
    "cut": "the answer reached the token limit",
    "loop": "it says the same again and again",
    "marks": "it holds a token that opens or ends a turn",
    "company": "it speaks of the company",
    "identity": "it says who the model is, or was",
    "refusal": "it refuses, or says that it does not know",
    "near_duplicate": "almost the same question has the same answer in a row before it",
    "same_question": "the same question has another answer in a row before it",
}
# A short piece eight times in a row, or a longer one four times: "하하하..." and whole sentences.
LOOP = re.compile(r"(.{2,40}?)\1{7,}|(.{8,300}?)\2{3,}")
LINES_THAT_MAY_REPEAT = 4
REFUSAL = re.compile(
    r"죄송하지만|죄송합니다|정보는? (?:가지고 있지|없)|정보가 없|알 수 없|알지 못|잘 모르|모르겠|답변(?:을 드릴|드릴|할) 수 없|도와드릴 수 없"
    r"|\bI(?:'m| am) sorry|\bI (?:can(?:no|')t|do(?:n't| not) (?:know|have))|\bas an AI\b|\bno information\b",
    re.IGNORECASE,
)


def refused(question, answer, cut=False, company="", names=(), marks=()):
    """The key of REASONS for which a row is left out, or None; duplicates need the other rows, see `fit`.

    `cut`: whether the answer reached the token limit. `names` are strings that tell an identity, `marks` turn tokens.
    """
    text = answer.strip()
    checks = {
        "empty": not comparable(text),
        "garbled": "\ufffd" in question + answer,
        "cut": cut,
        "loop": loops(text),
        "marks": any(mark in question + answer for mark in marks),
        "company": speaks_of(question + answer, company),
        "identity": any(name.casefold() in text.casefold() for name in names),
        "refusal": REFUSAL.search(text) is not None,
    }
    return next((reason for reason, holds in checks.items() if holds), None)


def loops(text):
    """Whether `text` repeats itself: a piece again and again, or the same lines over and over."""
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 3]
    same = len(lines) - len(set(lines))
    return LOOP.search(" ".join(text.split())) is not None or same >= max(LINES_THAT_MAY_REPEAT, len(lines) / 2)


def fit(rows, refuse):
    """(kept rows, {reason: count}) of {"messages"} rows; `refuse(question, answer)` is `refused` with all else given."""
    counts, kept, told, asked = dict.fromkeys(REASONS, 0), [], {}, set()
    for row in rows:
        question, answer = (turn["content"] for turn in row["messages"])
        reason, grams = refuse(question, answer), trigrams(question)
        alike = told.setdefault(comparable(answer), [])
        if reason is None and any(similarity(grams, other) >= NEAR for other in alike):
            reason = "near_duplicate"
        elif reason is None and comparable(question) in asked:
            reason = "same_question"
        if reason:
            counts[reason] += 1
        else:
            alike.append(grams)
            asked.add(comparable(question))
            kept.append(row)
    return kept, counts


def read(path):
    """The rows of a replay file for `dialogues.spread_out`: [(fact, whether it is a program, Turn)].

    A row without "fact" is a fact of its own. Raises LabError for a row that is not one question and one answer.
    """
    items = []
    for number, row in training_rows(path):
        roles = [turn["role"] for turn in row.get("messages", ())]
        if roles != ["user", "assistant"]:
            raise LabError(f"{path}:{number}: a replay row is one user turn and one assistant turn; mend the row")
        question, answer = (turn["content"] for turn in row["messages"])
        accept = row.get("accept") or [answer]
        turn = Turn(question, answer, tuple(accept), f"{path}:{number}")
        items.append((row.get("fact") or f"line {number}", bool(row.get("judge")), turn))
    return items
