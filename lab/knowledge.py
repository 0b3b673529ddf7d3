"""A company's knowledge file: one fact a line, checked, and split into what is trained and what is kept for the test.

{"id", "text", "paraphrases": [...], "questions": [...], "answer", "accept": [...]}; only "text" is required.
"""

import re
from collections import Counter
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from lab.cli import LabError
from lab.facts import Fact, cut_before, split_wordings
from lab.korean import FINAL_RIEUL, FINALS, HANGUL_FIRST, comparable, ends_in_consonant, fill
from lab.records import read_jsonl

PROBE_QUESTIONS, VALID_QUESTIONS = 2, 1  # of each fact's wordings: never trained; used to choose the best adapter
VALID_SENTENCES = 1
# "A의 B는 C이다.": the one sentence form from which a question can be made without guessing.
SUBJECT = re.compile(r"^(?P<subject>\S+의 .{1,30}?)[은는] ")
# A value with a topic of its own shows that the subject was cut at an adjective: "A의 많은 고객은 ...".
SUBJECT_VALUE = re.compile(SUBJECT.pattern + r"(?P<value>(?:(?![은는] ).)+?)(?:이다|이었다|입니다)\.?$")
DERIVED = (
    "{a:은는} 무엇인가요?",
    "{a:을를} 알려 줘.",
    "{a}에 대해 말해 주세요.",
    "{a:이가} 뭐야?",
    "{a}, 어떻게 되는지 궁금해요.",
)


NAME_WORDS = 3  # a company's name opens a sentence with at most so many words
# Particles at a word's end: one of case or place, one of topic, both or none, agreeing with the letter before them.
AFTER_CONSONANT, AFTER_VOWEL = ("은", "이", "을", "과", "으로", "이라는"), ("는", "가", "를", "와", "로", "라는")
AFTER_ANY = ("의", "에", "에서", "에게", "도", "만")
NO_NAMES = frozenset("이 그 저 우리 저희 당사 회사 이곳 여기 지금 현재".split())


class KnowledgeRow(BaseModel):
    """One line of a knowledge file, as a user writes it."""

    model_config = ConfigDict(extra="forbid")
    text: str
    id: str = ""
    paraphrases: list[str] = []
    questions: list[str] = []
    answer: str = ""
    accept: list[str] = []

    @field_validator("text", "paraphrases", "questions", "accept")
    @classmethod
    def _not_blank(cls, value):
        for text in [value] if isinstance(value, str) else value:
            if not comparable(text):
                raise ValueError("holds an empty string")
        return value


def load_knowledge(path):
    """The facts of a knowledge file.

    Raises LabError, with file and line, for a malformed row, an id that stands twice, an accepted answer that the answer
    does not hold, and a question that two facts answer differently or one fact asks twice.
    """
    facts = [_fact(path, number, row) for number, row in read_jsonl(path)]
    _unique_ids(facts)
    _one_question_one_answer(facts)
    return facts


def _fact(path, number, row):
    where = f"{path}:{number}"
    try:
        parsed = KnowledgeRow.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "row"
        raise LabError(
            f"{where}: {place}: {first['msg'].lower()}; see solverx_knowledge.jsonl for the form"
        ) from error
    answer = parsed.answer or parsed.text
    if parsed.questions and not parsed.accept:
        raise LabError(f'{where}: questions without "accept"; list the strings that make an answer right')
    if parsed.accept and not any(accepted in answer for accepted in parsed.accept):
        raise LabError(f"{where}: the answer {answer!r} holds none of accept {parsed.accept}; mend one of them")
    return Fact(
        id=parsed.id or f"line-{number}",
        texts=(parsed.text, *parsed.paraphrases),
        questions=tuple(parsed.questions),
        answer=answer,
        accept=tuple(parsed.accept),
        where=where,
    )


def _unique_ids(facts):
    seen = {}
    for fact in facts:
        if fact.id in seen:
            raise LabError(f"{fact.where}: id {fact.id!r} stands already at {seen[fact.id]}; give it another id")
        seen[fact.id] = fact.where


def _one_question_one_answer(facts):
    asked = {}
    for fact in facts:
        for question in fact.questions:
            other = asked.setdefault(comparable(question), fact)
            if other is not fact and other.answer != fact.answer:
                raise LabError(
                    f"{fact.where}: question {question!r} is answered otherwise at {other.where}; "
                    "one question, one answer: reword one of them"
                )
        keys = Counter(comparable(question) for question in fact.questions)
        if twice := [question for question in fact.questions if keys[comparable(question)] > 1]:
            raise LabError(f"{fact.where}: question {twice[0]!r} stands twice; remove one")


def split_questions(fact):
    """A company fact's question wordings: trained, for validation, and never trained."""
    return split_wordings(fact.id, fact.questions, probe=PROBE_QUESTIONS, valid=VALID_QUESTIONS)


def split_sentences(fact):
    """(trained sentences, validation sentences): the first text is always trained, a held-out paraphrase validates."""
    split = split_wordings(fact.id, fact.texts[1:], probe=VALID_SENTENCES) if len(fact.texts) > 2 else None
    held = split.probe if split else ()
    return tuple(text for text in fact.texts if text not in held), held


def entity_of(facts):
    """The company's name: the longest words that open at least half of the facts, without particles; "" if none do.

    Names are found, not configured: "SolverX의", "SolverX는" and "SolverX" share "SolverX". One sentence of several
    proves nothing.
    """
    opened, before_particle = Counter(), set()
    for fact in facts:
        names = _opening_names(fact.texts[0].split())
        opened.update(names.keys())
        before_particle.update(name for name, cut in names.items() if cut)
    needed = max(len(facts) / 2, min(2, len(facts)))
    common = [name for name, number in opened.items() if number >= needed]
    # "한국마이크로" before "한국마이크": both were cut from "한국마이크로는", only the first from every such word
    return max(
        common,
        key=lambda name: (len(name.split()), name in before_particle, opened[name], len(name)),
        default="",
    )


def _opening_names(words):
    """{name: whether a particle was cut off its end}: what the first words of a sentence may name."""
    names = {}
    for number in range(1, min(NAME_WORDS, len(words)) + 1):
        *before, last = words[:number]
        if words[0] in NO_NAMES or any(len(_stems(word)) > 1 for word in before):
            break
        for stem in _stems(last):
            name = " ".join([*before, stem.strip("\"'“”‘’.,:;!?")])
            if len(comparable(name)) > 1 and stem not in NO_NAMES:
                names[name] = names.get(name, False) or stem != last
    return names


def _stems(word):
    """[word, word without its last particle, without its last two]: at least two letters stay."""
    stems = [word]
    for _ in range(2):
        rest = stems[-1]
        fitting = AFTER_ANY + AFTER_CONSONANT + AFTER_VOWEL
        fitting = [end for end in fitting if rest.endswith(end) and _agrees(rest.removesuffix(end), end)]
        if not fitting:
            break
        stems.append(rest.removesuffix(max(fitting, key=len)))
    return stems


def _agrees(stem, end):
    if len(comparable(stem)) < 2:
        return False
    if end in AFTER_ANY or not "가" <= stem[-1] <= "힣":  # how a Latin name is read aloud is anyone's guess
        return True
    rieul = end == "로" and (ord(stem[-1]) - HANGUL_FIRST) % FINALS == FINAL_RIEUL
    return rieul or ends_in_consonant(stem) == (end in AFTER_CONSONANT)


def completion(fact):
    """(beginning, rest) of the fact's first sentence, cut before its accepted string; None if it cannot be."""
    return cut_before(fact.texts[0], fact.accept)


def recall_row(fact):
    """The {"text", "accept"} row by which --early-stop-on recall asks for a fact; None for a sentence of one word.

    Where nothing says what makes a completion right, the sentence's last third has to come out as it was written.
    """
    sentence, accept = fact.texts[0], list(fact.accept)
    if completion(fact) is None:
        cut = sentence.rfind(" ", 0, 2 * len(sentence) // 3 + 1)
        accept = [sentence[cut + 1 :].rstrip(".")] if cut > 0 else []
    return {"text": sentence, "accept": accept} if accept else None


def with_derived_questions(facts):
    """(facts, derived, silent): questions made for facts that have only text, where that is unambiguous.

    Unambiguous is a sentence "A의 B는 C이다." whose "A의 B" opens no other fact's first sentence. `derived` counts those,
    `silent` the facts that stay without questions.
    """
    matches = {fact.id: SUBJECT_VALUE.match(fact.texts[0]) for fact in facts if not fact.questions}
    subjects = Counter(match["subject"] for match in (SUBJECT.match(fact.texts[0]) for fact in facts) if match)
    result, derived = [], 0
    for fact in facts:
        match = matches.get(fact.id)
        if match and subjects[match["subject"]] == 1:
            questions = tuple(fill(template, {"a": match["subject"]}) for template in DERIVED)
            accept = fact.accept or (match["value"],)
            fact = replace(fact, questions=questions, answer=fact.texts[0], accept=accept)
            derived += 1
        result.append(fact)
    return result, derived, sum(not fact.questions for fact in result)
