"""KMMLU's questions as a model is asked them: prompts, few-shot examples and scoring of lm-evaluation-harness.

A prompt ends where the answer's letter follows. Of the choices the one with the greatest log-likelihood is picked, and
the score is the share of items picked right (`acc`). Labels are 1-based: 1 is A.

Source: lm-evaluation-harness 0.4.13, tasks/kmmlu/default (version 2.0) and tasks/haerae (version 1.0), api/task.py,
api/samplers.py. Its examples are not the first of dev: for each question it draws them anew, in its own order, by one
random.Random(seed) a subject.
"""

import random
from dataclasses import dataclass

from lab import answers
from lab.cli import LabError

SEED = 1234  # lm-evaluation-harness's own for few-shot examples; mlx_lm.evaluate has 123
LM_EVAL, FIRST = "lm-eval", "first"
MOST_SHOTS = 5  # as many examples as a subject's dev file holds


@dataclass(frozen=True)
class Item:
    """One question: its options' texts (none where the question shows them itself), and its label from 1.

    `human` is the share of people who got it right, where it is known; `where` is file:line.
    """

    id: str
    subject: str
    question: str
    options: tuple
    label: int
    human: float | None = None
    where: str = ""


@dataclass(frozen=True)
class Task:
    """A benchmark: `choices` are what is scored after the prompt, `letters` how reports call them."""

    name: str
    version: str
    letters: str
    choices: tuple
    from_dev: bool  # few-shot examples come from dev; else from the other test items

    @property
    def chance(self):
        return 1 / len(self.letters)

    def text(self, item):
        """The prompt of an item: it ends where the choice follows."""
        if not item.options:
            return item.question
        lines = [f"{letter}. {option}" for letter, option in zip(self.letters, item.options, strict=True)]
        return "\n".join([item.question.strip(), *lines, "정답："])

    def target(self, item):
        """The right choice, as it is scored."""
        return self.choices[item.label - 1]


KMMLU = Task("kmmlu", "2.0", "ABCD", tuple("ABCD"), from_dev=True)
HAERAE = Task("haerae_general_knowledge", "1.0", "ABCDE", tuple(f"({letter})" for letter in "ABCDE"), False)


@dataclass(frozen=True)
class Style:
    """How items are asked: number of examples, whether in chat form, each example as turns of its own, how drawn."""

    shots: int = 0
    chat: bool = False
    multiturn: bool = True
    order: str = LM_EVAL
    seed: int = SEED


@dataclass(frozen=True)
class Asked:
    """A subject's items with the few-shot examples of each, and how they are asked."""

    task: Task
    subject: str
    items: list
    examples: list
    style: Style

    def prompts(self, tokenizer):
        """[(prompt tokens, [tokens of each choice])] of the items."""
        found = []
        for item, shown in zip(self.items, self.examples, strict=True):
            text = prompt(self.task, tokenizer, item, shown, self.style)
            found.append(tokens(self.task, tokenizer, text, self.style))
        return found


def examples(task, items, pool, style):
    """For each of `items` the list of its few-shot examples out of `pool` (dev, or all test items).

    Raises LabError where the pool is too small.
    """
    own = not task.from_dev  # the item itself is in the pool and must not be its own example
    if style.shots and len(pool) < style.shots + own:
        where = pool[0].where.rpartition(":")[0]
        raise LabError(f"{where}: {len(pool)} examples, too few for --shots {style.shots}; use fewer")
    chance = random.Random(style.seed)
    drawn = []
    for item in items:
        if not style.shots:
            drawn.append([])
        elif style.order == FIRST:
            drawn.append([each for each in pool if not _same(each, item)][: style.shots])
        else:
            sample = chance.sample(pool, style.shots + own)
            kept = [each for each in sample if not (own and _same(each, item))][: style.shots]
            if len(kept) < style.shots:  # the pool holds the item twice
                kept = chance.sample([each for each in pool if not _same(each, item)], style.shots)
            drawn.append(kept)
    return drawn


def _same(one, other):
    return (one.question, one.options, one.label) == (other.question, other.options, other.label)


def prompt(task, tokenizer, item, shown, style):
    """The text a model is given for `item` after the examples `shown`. Raises LabError where there is no template."""
    turns = []
    for example in shown:
        turns += [("user", task.text(example)), ("assistant", task.target(example))]
    turns.append(("user", task.text(item)))
    if not style.chat or not style.multiturn:
        joints = {"user": " ", "assistant": "\n\n"}
        text = "".join(content + joints[role] for role, content in turns[:-1]) + turns[-1][1]
        turns = [("user", text)]
    if not style.chat:
        return turns[0][1]
    if getattr(tokenizer, "chat_template", None) is None:
        raise LabError("--chat: this model has no chat template; leave --chat out")
    messages = [{"role": role, "content": content} for role, content in turns]
    return answers.render(tokenizer, messages, item.where, add_generation_prompt=True)


def tokens(task, tokenizer, text, style):
    """(prompt tokens, [tokens of each choice after it]) of a prompt's text, split as mlx_lm.evaluate splits them.

    Raises LabError for a tokenizer that swallows a choice at the boundary.
    """

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=not style.chat)

    joint = "" if style.chat else " "
    head = encode(text)
    tails = [encode(f"{text}{joint}{choice}")[len(head) :] for choice in task.choices]
    if not head or not all(tails):
        raise LabError(
            f"the tokenizer joins a choice with the end of its prompt ({text[-20:]!r}); use another model"
        )
    return head, tails


def pick(log_likelihoods):
    """The number of the choice with the greatest log-likelihood, the first of equals."""
    return max(range(len(log_likelihoods)), key=log_likelihoods.__getitem__)
