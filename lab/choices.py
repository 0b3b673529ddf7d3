"""Log-likelihoods of the choices of many questions, in batches, with what prompts share computed once.

Prompts are sorted into a tree of common beginnings (few-shot examples; a question before choices of several tokens), and
what follows a beginning is computed with the beginning's keys and values. The head is computed only where it is read: at
one position for choices of a single token. The order of batches is a function of the questions alone, so that a stopped
run can go on after any batch.

Letters: B batch, T tokens, P tokens of a shared beginning, K key-value heads, D head dimension, N places, V vocabulary.
"""

from dataclasses import dataclass, field
from itertools import pairwise

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import KVCache, create_attention_mask, make_prompt_cache

from lab import training

LEAST_SHARED = 16  # tokens; shorter common beginnings are not looked at
WORTH = 96  # tokens saved that pay for one more call of the model
PAD_TO = 8  # lengths are padded up to a multiple of this: fewer distinct shapes, little padding


@dataclass(frozen=True)
class Question:
    """A prompt's tokens (T,) int32 and, for each choice, the list of tokens that follow the prompt."""

    prompt: np.ndarray
    choices: list

    @classmethod
    def of(cls, prompt, choices):
        """A Question of plain lists."""
        return cls(np.array(prompt, dtype=np.int32), choices)

    def rows(self):
        """[(inputs, [(place in inputs, token that is to follow there, number of the choice)])]: what the model reads.

        Choices that differ in their last token alone share a row; so do single tokens, and " A" to " D" of two tokens.
        """
        stems = {tuple(tokens[:-1]) for tokens in self.choices}
        longest = sorted(stem for stem in stems if not any(_goes_on(other, stem) for other in stems))
        scored, last = {stem: [] for stem in longest}, len(self.prompt) - 1
        for number, tokens in enumerate(self.choices):
            own = next(stem for stem in longest if stem[: len(tokens) - 1] == tuple(tokens[:-1]))
            scored[own] += [(last + step, token, number) for step, token in enumerate(tokens)]
        return [(np.concatenate([self.prompt, np.array(stem, np.int32)]), scored[stem]) for stem in longest]


def _goes_on(other, stem):
    return len(other) > len(stem) and other[: len(stem)] == stem


@dataclass
class Node:
    """Questions whose prompts share their first `end` tokens, `tokens`: batches of some, children that share more.

    Its batches and those below it have the numbers `first` to `after` (exclusive) in the plan's order.
    """

    end: int
    tokens: np.ndarray
    batches: list = field(default_factory=list)
    children: list = field(default_factory=list)
    first: int = 0
    after: int = 0


class Plan:
    """In which batches `questions` are computed, and what is shared: a tree of Nodes, `size` batches in all.

    A batch is a list of numbers of questions, at most `batch_size`; `shared` False leaves them all in the root.
    """

    def __init__(self, questions, batch_size, shared=True):
        self.questions, self.batch_size, self.shared = questions, batch_size, shared
        self.order = sorted(range(len(questions)), key=lambda number: questions[number].prompt.tolist())
        prompts = (questions[number].prompt for number in self.order)
        self.common = np.array([common_length(first, second) for first, second in pairwise(prompts)], dtype=int)
        self.root = self._node(0, len(questions), 0)
        self.size = self._number(self.root, 0)

    def _length(self, place):
        return len(self.questions[self.order[place]].prompt)

    def _node(self, start, stop, end):
        """The node of the sorted prompts `start` to `stop`, which share `end` tokens."""
        node, loose = Node(end, self.questions[self.order[start]].prompt[:end]), []
        for part in self._parts(start, stop, end + LEAST_SHARED):
            self._place(node, *part, loose)
        loose.sort(key=lambda place: (self._length(place), place))
        numbers = [self.order[place] for place in loose]
        node.batches = [numbers[at : at + self.batch_size] for at in range(0, len(numbers), self.batch_size)]
        return node

    def _place(self, node, start, stop, loose):
        """Make a child of `node` of sorted prompts where that saves enough, or children of parts of them."""
        common = int(self.common[start : stop - 1].min(initial=1 << 30))
        end = min(common, *(self._length(place) - 1 for place in range(start, stop)))
        if not self.shared or stop - start == 1:
            loose += range(start, stop)
        elif (stop - start - 1) * (end - node.end) >= WORTH:
            node.children.append(self._node(start, stop, end))
        elif len(parts := self._parts(start, stop, common + 1)) == 1:
            loose += range(start, stop)
        else:
            for part in parts:
                self._place(node, *part, loose)

    def _parts(self, start, stop, least):
        """[(start, stop)] of the sorted prompts, cut where neighbours share fewer than `least` tokens."""
        cuts = [start, *(np.flatnonzero(self.common[start : stop - 1] < least) + start + 1).tolist(), stop]
        return list(pairwise(cuts))

    def _number(self, node, first):
        node.first, node.after = first, first + len(node.batches)
        for child in node.children:
            node.after = self._number(child, node.after)
        return node.after

    def batches(self):
        """The batches in their order."""
        nodes = [self.root]
        while nodes:
            node = nodes.pop()
            yield from node.batches
            nodes += reversed(node.children)

    def tokens(self):
        """(tokens of prompts given to the model, tokens of all prompts one by one), without padding."""
        given, nodes = 0, [(self.root, 0)]
        while nodes:
            node, start = nodes.pop()
            given += node.end - start
            given += sum(
                len(self.questions[number].prompt) - node.end for batch in node.batches for number in batch
            )
            nodes += [(child, node.end) for child in node.children]
        return given, sum(len(question.prompt) for question in self.questions)


def common_length(first, second):
    """How many leading tokens two arrays share."""
    least = min(len(first), len(second))
    differ = np.flatnonzero(first[:least] != second[:least])
    return int(differ[0]) if len(differ) else least


class Shared:
    """A layer's keys and values (1, K, P, D) of a beginning, standing for the layer's cache in mlx-lm's models.

    They are broadcast over a batch and never changed; `fresh` holds what the last call added.
    """

    def __init__(self, keys=None, values=None):
        self.keys, self.values = keys, values
        self.offset = 0 if keys is None else keys.shape[2]
        self.fresh = None

    def update_and_fetch(self, keys, values):
        self.fresh = keys, values
        if self.keys is None:
            return keys, values
        both = []
        for old, new in ((self.keys, keys), (self.values, values)):
            wide = mx.broadcast_to(old, (new.shape[0], *old.shape[1:]))
            both.append(mx.concatenate([wide, new], axis=2))
        return both

    def make_mask(self, tokens, return_array=False, window_size=None):
        return create_attention_mask(tokens, self.offset, return_array, window_size)

    def longer(self):
        """The Shared that goes on with what the last call added."""
        if self.keys is None:
            return Shared(*self.fresh)
        both = zip((self.keys, self.values), self.fresh, strict=True)
        return Shared(*(mx.concatenate(pair, axis=2) for pair in both))


def can_share(model):
    """Whether the model's layers keep plain keys and values of all tokens: no sliding window, no recurrent state."""
    if not isinstance(model, training.HEAD_APART):
        return False
    return all(type(cache) is KVCache for cache in make_prompt_cache(model))


def extended(model, beginning, tokens):
    """The list of Shared, one a layer, after `tokens` (T,) that follow `beginning` (None: nothing before)."""
    caches = beginning or [Shared() for _ in model.layers]
    training.states(model, mx.array(tokens)[None], caches)
    longer = [cache.longer() for cache in caches]
    mx.eval([(cache.keys, cache.values) for cache in longer])
    return longer


def scored(model, plan, done=0):
    """For each batch of `plan` from number `done` on: (numbers of questions, [[log-likelihood of each choice], ...])."""
    yield from _scored(model, plan, plan.root, None, 0, done)


def _scored(model, plan, node, beginning, start, done):
    if node.after <= done:
        return
    if node.end > start:
        beginning = extended(model, beginning, node.tokens[start:])
    for number, batch in enumerate(node.batches, node.first):
        if number >= done:
            yield batch, log_likelihoods(model, [plan.questions[each] for each in batch], beginning, node.end)
    for child in node.children:
        yield from _scored(model, plan, child, beginning, node.end, done)


def log_likelihoods(model, questions, beginning=None, end=0):
    """[[log p of each choice, nats] of each question]; `beginning` holds the first `end` tokens of every prompt."""
    rows = [(number, *row) for number, question in enumerate(questions) for row in question.rows()]
    width = -(-(max(len(inputs) for _, inputs, _ in rows) - end) // PAD_TO) * PAD_TO
    padded, wanted, positions = np.zeros((len(rows), width), dtype=np.int32), [], {}
    for line, (number, inputs, scored) in enumerate(rows):
        padded[line, : len(inputs) - end] = inputs[end:]
        for place, token, choice in scored:
            position = positions.setdefault(line * width + place - end, len(positions))
            wanted.append((position, token, number, choice))
    logits = training.logits_at(model, mx.array(padded), mx.array(list(positions)), beginning)
    places, tokens = (mx.array([each[part] for each in wanted]) for part in (0, 1))
    found = nn.log_softmax(logits, axis=-1)[places, tokens].tolist()
    totals = [[0.0] * len(question.choices) for question in questions]
    for value, (_, _, number, choice) in zip(found, wanted, strict=True):
        totals[number][choice] += value
    return totals
