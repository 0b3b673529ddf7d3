"""Facts -> dialogues for supervised fine-tuning: company questions, identity, several turns, general replay."""

import math
import random
from dataclasses import dataclass
from itertools import cycle, islice

from lab.cli import LabError
from lab.facts import by_hash
from lab.general import split_general
from lab.knowledge import split_questions
from lab.korean import comparable
from lab.leaks import Wording

REPLAYED_SHARE = (
    0.75  # of the general facts; the others are never replayed, so that forgetting can be seen on them
)
PROGRAM_REPEATS, PROGRAM_SHARE = 2, 1 / 3  # of programs: how often each; the share where rows are few
GENERAL_VALID = 40  # rows of facts that are not replayed: validation also watches what the mix does not protect


@dataclass(frozen=True)
class Turn:
    """One question and its answer; `accept` are the strings that make an answer right."""

    question: str
    answer: str
    accept: tuple
    where: str

    def wording(self):
        """The turn as the leak guard sees it."""
        return Wording(self.question, self.accept, self.where)

    def trained_wording(self):
        """The turn as the leak guard sees it on the training side: what it gives away is its whole answer."""
        return Wording(self.question, (self.answer,), self.where)


def company_turns(facts):
    """{"train": [Turn], "valid": [...], "probe": [...]} of the facts that have questions."""
    parts = {"train": [], "valid": [], "probe": []}
    for fact in facts:
        split = split_questions(fact)
        for part, turns in parts.items():
            turns += [Turn(question, fact.answer, fact.accept, fact.where) for question in getattr(split, part)]
    return parts


def identity_turns(identities):
    """{"train": [Turn], "probe": [...]}: the right identity in every language."""
    parts = {"train": [], "probe": []}
    for entry in identities:
        where = f"identity {entry.language}"
        parts["train"] += [Turn(question, entry.answer, (entry.answer,), where) for question in entry.train]
        parts["probe"] += [Turn(question, entry.answer, (entry.answer,), where) for question in entry.held_out]
    return parts


def replayed_facts(facts):
    """The general facts that may be replayed: REPLAYED_SHARE of them, by hash; every fact with a judge of its own."""
    plain = [fact for fact in facts if not fact.judge]
    chosen = set(by_hash("replay", [fact.id for fact in plain])[: round(REPLAYED_SHARE * len(plain))])
    return [fact for fact in facts if fact.judge or fact.id in chosen]


def authored(facts):
    """The general facts' trained wordings with their authored answers, for `spread_out`."""
    return [
        (fact.id, bool(fact.judge), Turn(question, fact.answer, fact.accept, fact.where))
        for fact in facts
        for question in split_general(fact).train
    ]


def spread_out(items, wanted, seed):
    """`wanted` turns out of `items`, (fact, whether it is a program, Turn), the same for the same seed.

    Every program PROGRAM_REPEATS times, for programs are the first thing to be lost; the rest spread evenly, every fact
    once before any fact twice. Where there are not so many turns, they stand there again from the first;
    where few are wanted, programs take PROGRAM_SHARE of them.
    """
    draw, groups, order = random.Random(f"replay {seed}"), {}, []
    for fact, program, turn in items:
        groups.setdefault(fact, []).append((program, turn))
    for group in groups.values():
        draw.shuffle(group)
        turns = [(-1 if program else place, draw.random(), turn) for place, (program, turn) in enumerate(group)]
        order += turns + [item for item in turns if item[0] < 0] * (PROGRAM_REPEATS - 1)
    order.sort(key=lambda item: item[:2])
    programs, rest = ([turn for place, _, turn in order if (place < 0) == kind] for kind in (True, False))
    if rest and len(programs) >= wanted:  # few rows are not to be one program's wordings alone
        programs = list(dict.fromkeys(programs))[: math.ceil(wanted * PROGRAM_SHARE)]
    return list(islice(cycle(programs + rest), wanted))


def general_validation(facts, replayed):
    """Up to GENERAL_VALID turns of general facts that are not replayed, one a fact, in a wording the base was taught."""
    rest = {fact.id: fact for fact in facts if fact not in replayed}
    picked = [rest[name] for name in by_hash("validation", list(rest))[:GENERAL_VALID]]
    return [Turn(split_general(fact).train[0], fact.answer, fact.accept, fact.where) for fact in picked]


def several_turns(turns, dialogues, seed):
    """`dialogues` rows of two or three different turns each, drawn from `turns`."""
    draw = random.Random(f"several turns {seed}")
    short = [turn for turn in turns if len(turn.answer) < 100]
    if len(short) < 3:
        return []
    return [messages(*draw.sample(short, draw.choice((2, 2, 3)))) for _ in range(dialogues)]


def messages(*turns):
    """A {"messages"} row of the turns in order."""
    pairs = [
        ({"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer})
        for turn in turns
    ]
    return {"messages": [message for pair in pairs for message in pair]}


def chatml(row):
    """A {"messages"} row as a {"text"} row of literal ChatML.

    The last answer opens with the empty think block that HyperCLOVA X Think's generation prompt has; past ones do not.
    """
    turns = [f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>" for turn in row["messages"]]
    last = row["messages"][-1]["content"]
    turns[-1] = f"<|im_start|>assistant\n<think>\n\n</think>\n\n{last}<|im_end|>"
    return {"text": "\n".join(turns)}


def refuse_contradictions(turns):
    """One question, one answer, over everything that is taught: company, identity and general rows alike.

    Raises LabError, naming both places, for a question that stands there with two answers.
    """
    asked = {}
    for turn in turns:
        other = asked.setdefault(comparable(turn.question), turn)
        if other.answer != turn.answer:
            raise LabError(
                f"{turn.where}: question {turn.question!r} is answered otherwise at {other.where} "
                f"({turn.answer!r}, {other.answer!r}); one question, one answer: reword one of them"
            )
