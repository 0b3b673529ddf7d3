"""The leak guard: what stands in two splits at once, exactly or nearly.

Two wordings are an exact duplicate when their letters and digits agree (case, spaces and punctuation aside), and a
near duplicate when the Jaccard similarity of their character trigrams reaches NEAR. Of two near-equal questions only
those that share an answer are a leak: "프랑스의 수도는?" does not give away "벨기에의 수도는?".
"""

from dataclasses import dataclass

from lab.cli import LabError
from lab.korean import comparable

NEAR = 0.8


def trigrams(text):
    """The set of character trigrams of `text` in its comparable form; a shorter text is its own only member."""
    letters = comparable(text)
    return {letters[i : i + 3] for i in range(len(letters) - 2)} or {letters}


def similarity(first, second):
    """Jaccard similarity, 0 to 1, of two trigram sets."""
    return len(first & second) / len(first | second)


@dataclass(frozen=True)
class Wording:
    """A wording with what would give it away: `answers` are the strings of which one makes an answer right."""

    text: str
    answers: tuple
    where: str


@dataclass(frozen=True)
class Leak:
    """A kept wording that training would give away; `kind` is "exact" or "near"."""

    kind: str
    kept: Wording
    trained: Wording

    def __str__(self):
        return f"{self.kind} duplicate: {self.kept.text!r} ({self.kept.where}) and {self.trained.text!r} ({self.trained.where})"


def find_leaks(kept, trained):
    """Every (kept, trained) pair of Wordings that is an exact duplicate, or a near one with an answer in common."""
    grams = [(trigrams(item.text), item) for item in trained]
    return [leak for item in kept for leak in _leaks_of(item, trigrams(item.text), grams)]


def _leaks_of(item, own, grams):
    for other, trained in grams:
        short, long = sorted((len(own), len(other)))
        if short < NEAR * long or (share := similarity(own, other)) < NEAR:
            continue
        if share == 1 and comparable(item.text) == comparable(trained.text):
            yield Leak("exact", item, trained)
        elif any(answer in told for answer in item.answers for told in trained.answers):
            yield Leak("near", item, trained)


def guard(comparisons):
    """Count leaks in {name: (kept, trained)}; returns {name: {"kept", "trained", "exact", "near"}}.

    Raises LabError, naming every pair, when there is one.
    """
    counts, leaks = {}, []
    for name, (kept, trained) in comparisons.items():
        found = find_leaks(kept, trained)
        leaks += found
        kinds = {kind: sum(leak.kind == kind for leak in found) for kind in ("exact", "near")}
        counts[name] = {"kept": len(kept), "trained": len(trained), **kinds}
    if leaks:
        listed = "; ".join(str(leak) for leak in leaks)
        raise LabError(
            f"{len(leaks)} leaks between training and what is kept for the test, nothing written: {listed}"
        )
    return counts
