"""Judge a bandit program by playing against it: it runs in the sandbox, the bandits stay on this side.

So a verdict cannot be forged from inside: what counts is which arms were pulled, and that is counted here.
"""

import ast
import functools
import random
import re
import warnings
from dataclasses import dataclass, field

from lab.sandbox import Foul, run_program

FENCE = re.compile(r"```[ \t]*([^\s`]*)[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
PYTHON = ("python", "python3", "py")
ASKED_FOR = "def thompson_sampling"
MEANS = (0.2, 0.4, 0.6, 0.8)  # reward probabilities of the arms, in another order for each bandit
ROUNDS, BANDITS, NEEDED = 600, 5, 4
VERDICTS = ("no_code", "does_not_run", "runs_and_loses", "finds_best_arm")


@dataclass(frozen=True)
class Verdict:
    """What became of a bandit program: `label` is one of VERDICTS, `detail` says why in a line."""

    label: str
    detail: str


@dataclass
class Bandits:
    """BANDITS bandits that this side owns: it draws rewards and counts pulls; the program only names arms.

    The best arm of bandit k is arm k modulo the number of arms, so that no fixed arm is best in many.
    """

    arguments = (len(MEANS), ROUNDS, BANDITS)
    found: list = field(default_factory=list)
    remarks: list = field(default_factory=list)

    def __post_init__(self):
        self._next()

    def _next(self):
        self.draw = random.Random(f"bandit {len(self.found)}")
        self.best = len(self.found) % len(MEANS)
        self.means = sorted(MEANS)[:-1]
        self.draw.shuffle(self.means)
        self.means.insert(self.best, max(MEANS))
        self.pulls = []

    def reply(self, word, rest):
        """The bytes that answer a line of the program. Raises Foul for a line that the rules do not know."""
        if len(self.found) < BANDITS and word == "pull" and rest in map(str, range(len(MEANS))):
            if len(self.pulls) == ROUNDS:
                raise Foul(f"bandit {len(self.found) + 1}: pulled more than {ROUNDS} times")
            self.pulls.append(int(rest))
            return b"%d\n" % (self.draw.random() < self.means[int(rest)])
        if len(self.found) < BANDITS and word == "returned":
            self._close(rest)
            return b""
        raise Foul(f"wrote to the judge's line: {word[:40]!r}")

    def _close(self, value):
        late = self.pulls[ROUNDS // 2 :]
        share = late.count(self.best) / max(1, len(late))
        remark = ""
        if len(self.pulls) != ROUNDS:
            remark = f"{len(self.pulls)} of {ROUNDS} pulls"
        elif share <= 0.5:
            remark = f"best arm in {share:.0%} of the last {len(late)} pulls"
        elif value not in ("?", str(self.best)):
            remark = f"returned arm {value}, the best is {self.best}"
        self.found.append(not remark)
        self.remarks += [f"bandit {len(self.found)}: {remark}"] if remark else []
        self._next()


def program_text(answer):
    """The program in an answer, or None: its first Python fence, before that one with the function that is asked for.

    A fence without a language, or an answer without any, counts where it is Python with a def.
    """
    found = [(language.lower(), text) for language, text in FENCE.findall(answer)]
    fences = [text for language, text in found if language in PYTHON or (not language and _defines(text))]
    if fences:
        return next((text for text in fences if ASKED_FOR in text), fences[0])
    return answer if _defines(answer) else None


def _defines(text):
    """Whether `text` is Python that defines a function."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.FunctionDef) for node in tree.body)


def judge_bandit(answer):
    """The Verdict on the bandit program in a model's answer.

    thompson_sampling(pull, arms, rounds) must, in NEEDED of BANDITS bandits, pull exactly `rounds` times, the
    best arm in more than half of the last half, and, if it returns an int, return the best arm.
    """
    source = program_text(answer)
    return Verdict("no_code", "no Python in the answer") if source is None else _judge(source)


@functools.lru_cache(maxsize=256)
def _judge(source):
    bandits = Bandits()
    outcome = run_program(source, game=bandits)
    score = f"best arm found in {sum(bandits.found)} of {BANDITS} bandits"
    if outcome.ended == "finished" and len(bandits.found) == BANDITS:
        if sum(bandits.found) >= NEEDED:
            return Verdict("finds_best_arm", score)
        return Verdict("runs_and_loses", f"{score}, {NEEDED} are needed; {bandits.remarks[0]}")
    if outcome.ended == "foul" and "pulled more than" in outcome.detail:
        return Verdict("runs_and_loses", outcome.detail)
    where = f"bandit {len(bandits.found) + 1}: " if bandits.found or bandits.pulls else ""
    return Verdict("does_not_run", f"{where}{outcome.ended.replace('_', ' ')}: {outcome.detail}")
