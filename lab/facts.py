"""Facts and how their wordings are split: what is trained, what validates, and what is never trained anywhere.

A fact is {id, texts, questions, answer, accept}. An answer counts as right when it contains one of `accept`.
"""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fact:
    """One fact with its wordings; `where` is file:line for messages, `judge` names a special judge or is empty."""

    id: str
    texts: tuple
    questions: tuple
    answer: str
    accept: tuple
    where: str = ""
    judge: str = ""
    held_out: int = 1


@dataclass(frozen=True)
class Split:
    """One fact's question wordings: trained, used to choose the best adapter, and kept for the final test."""

    train: tuple = field(default=())
    valid: tuple = field(default=())
    probe: tuple = field(default=())


def by_hash(owner, wordings):
    """`wordings` in an order that no hand chose: by SHA-256 of the owner's id and the wording."""
    return sorted(wordings, key=lambda text: hashlib.sha256(f"{owner}\n{text}".encode()).digest())


def split_wordings(owner, wordings, probe, valid=0):
    """Split wordings into (train, valid, probe), by hash; at least one stays in train. Train keeps the given order.

    With few wordings the probes give way first to training, then validation.
    """
    order = by_hash(owner, wordings)
    probe = min(probe, max(0, len(order) - 1))
    valid = min(valid, max(0, len(order) - 1 - probe))
    held = {"probe": order[:probe], "valid": order[probe : probe + valid]}
    train = tuple(text for text in wordings if text not in held["probe"] and text not in held["valid"])
    return Split(train, tuple(held["valid"]), tuple(held["probe"]))


def cut_before(sentence, accept):
    """(beginning, rest) of a sentence, cut at the last space before its first accepted string; None if it cannot.

    The rest begins with that space. The beginning holds at least one word and none of the accepted strings.
    """
    places = [sentence.find(accepted) for accepted in accept]
    value = min((place for place in places if place > 0), default=0)
    cut = sentence.rfind(" ", 0, value + 1)
    return (sentence[:cut], sentence[cut:]) if cut > 0 else None
