"""What is asked of a model after training, and what makes an answer right. Nothing here loads a model.

Metrics: identity, completion, recall (trained wordings), recall_paraphrase (wordings trained nowhere),
general (wordings trained nowhere), mab_ts (a bandit program that wins). `glasses` is counted on the general
answers.
"""

import re
import unicodedata
from dataclasses import dataclass

from lab import bandits
from lab.general import BANDIT, split_general
from lab.knowledge import completion, split_questions

CHAT, COMPLETION, PROGRAM = "chat", "completion", "program"
SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n")
LATIN = "[A-Za-zÀ-ÖØ-öø-ɏ]"


@dataclass(frozen=True)
class Probe:
    """One question and its judge.

    An answer is right when it holds one of `accept` (case counts; none asked where it is empty), one string
    of every group in `must` and none of `reject` (both whatever the case). `kind` says how it is asked and
    judged: "chat"; "completion", whose prompt is the beginning of a sentence; "program", whose answer is run.
    `trained`: was this wording trained. `judged` is False where nothing says what is right.
    """

    id: str
    metric: str
    prompt: str
    accept: tuple = ()
    reject: tuple = ()
    kind: str = CHAT
    trained: bool = False
    category: str = ""
    must: tuple = ()
    fact: str = ""
    judged: bool = True


def company_probes(facts):
    """The probes of a company's facts: completion, recall and recall_paraphrase.

    Facts without questions give only a completion, and none where their sentence cannot be cut (see `uncut`).
    """
    probes = []
    for fact in facts:
        probes += _completion_probe(fact)
        split = split_questions(fact)
        asked = (("recall", split.train, True), ("recall_paraphrase", split.probe, False))
        for metric, wordings, trained in asked:
            probes += [_probe(fact, metric, n, text, trained=trained) for n, text in enumerate(wordings)]
    return probes


def uncut(facts):
    """The facts without a completion probe: their first sentence cannot be cut before an accepted string."""
    return [fact for fact in facts if not _completion_probe(fact)]


def _completion_probe(fact):
    beginning, rest = completion(fact) or ("", "")
    probe = _probe(fact, "completion", 0, beginning, kind=COMPLETION, trained=True)
    return [probe] if beginning and judge(probe, rest) else []  # a probe that the truth would fail is none


def identity_probes(identities):
    """The identity questions: those trained nowhere, and some of the trained ones."""
    probes = []
    for who in identities:
        for trained, wordings in ((False, who.held_out), (True, who.probe_trained)):
            category = f"{who.language}, {'trained' if trained else 'new'} wording"
            rules = {"must": who.must, "reject": who.must_not, "trained": trained, "category": category}
            name = f"identity-{who.language}-{'trained' if trained else 'new'}"
            probes += [Probe(f"{name}#{n}", "identity", text, **rules) for n, text in enumerate(wordings)]
    return probes


def general_probes(facts):
    """The general questions in wordings trained nowhere; facts with a judge of their own are left out."""
    return [
        _probe(fact, "general", n, text, category=_group(fact))
        for fact in facts
        if not fact.judge
        for n, text in enumerate(split_general(fact).probe)
    ]


def bandit_probes(facts):
    """The questions that ask for a bandit program, in wordings trained nowhere."""
    return [
        _probe(fact, "mab_ts", n, text, kind=PROGRAM, category=_group(fact))
        for fact in facts
        if fact.judge == BANDIT
        for n, text in enumerate(split_general(fact).probe)
    ]


def _probe(fact, metric, number, prompt, **more):
    name = fact.id if metric == "completion" else f"{fact.id}#{number}"
    return Probe(f"{metric}/{name}", metric, prompt, fact.accept, fact=fact.id, **more)


def _group(fact):
    return fact.id.rsplit("/", 1)[0]


def judge(probe, answer):
    """Whether `answer` is right; see Probe. A completion is judged by the sentence it finishes only."""
    return verdict(probe, answer)[0]


def verdict(probe, answer):
    """(right, detail): as `judge`, with the program's verdict in words where a program was run."""
    answer = unicodedata.normalize("NFC", answer)
    if probe.kind == PROGRAM:
        found = bandits.judge_bandit(answer)
        return found.label == "finds_best_arm", f"{found.label}: {found.detail}"
    if probe.kind == COMPLETION:
        answer = SENTENCE_END.split(answer.strip(), maxsplit=1)[0]
    accepted = not probe.accept or any(holds(answer, text) for text in probe.accept)
    folded = answer.casefold()
    named = all(any(holds(folded, text.casefold()) for text in group) for group in probe.must)
    return accepted and named and not any(text.casefold() in folded for text in probe.reject), ""


def holds(answer, accepted):
    """Whether `accepted` stands in `answer` by itself, not inside a longer number or Latin word.

    "3초" is not in "13초" or "0.3초", "14일" not in "114일", "3.2" not in "3.25", "5도" not in "-5도", "H"
    not in "He"; but "16" is in "16GB", "3.2" in "v3.2", and Korean particles may follow anything.
    """
    accepted = unicodedata.normalize("NFC", accepted)
    before = after = ""
    if accepted[:1].isdigit():
        before = r"(?<!\d)(?<!\d[.,])(?<!\s[-−])(?<!^[-−])"
    elif _latin(accepted[:1]):
        before = rf"(?<!{LATIN})"
    if accepted[-1:].isdigit():
        after = r"(?![.,]?\d)"
    elif _latin(accepted[-1:]):
        after = rf"(?!{LATIN})"
    return re.search(before + re.escape(accepted) + after, answer) is not None


def _latin(letter):
    return re.fullmatch(LATIN, letter) is not None


def speaks_of(answer, entity):
    """Whether `answer` names the company `entity` (never where that is ""), whatever the case."""
    return bool(entity) and entity.casefold() in unicodedata.normalize("NFC", answer).casefold()
