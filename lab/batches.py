"""What the trainer eats, as a pure function of (sequences, batch size, seed, step).

Every epoch sorts the whole set by length, each length stretched by a little chance, cuts it into batches (one may be
short: every sequence is used once an epoch) and shuffles the batches. Letters: B batch, T tokens.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

STRETCH = (
    0.1  # how much longer chance makes a sequence at most: other neighbours each epoch, and still little padding
)
PAD_TO = 8  # lengths are padded up to a multiple of this: few distinct shapes, little padding
PLACES_TO = 32  # the same for the number of trained positions of a batch


@dataclass(frozen=True)
class Batch:
    """inputs and targets (B, T) int32, weights (B, T) float32: 1 where the target is trained; rows: sequence indices."""

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    rows: tuple

    def trained(self):
        """(places, targets, weights), each (N,): the flat positions whose targets are trained, N padded with weight 0."""
        found = np.flatnonzero(self.weights)
        places = np.zeros(-(-len(found) // PLACES_TO) * PLACES_TO, dtype=np.int32)
        places[: len(found)] = found
        weights = np.zeros(len(places), dtype=np.float32)
        weights[: len(found)] = self.weights.reshape(-1)[found]
        return places, self.targets.reshape(-1)[places], weights


def padded_width(longest, pad_to=PAD_TO):
    """The T of a batch whose longest sequence has `longest` tokens: its last token is a target only."""
    return -(-(int(longest) - 1) // pad_to) * pad_to


def padded(sequences, rows, pad_to=PAD_TO):
    """The batch of the sequences at `rows`, padded at the end with zeros that carry no weight."""
    width = padded_width(max(len(sequences[row]) for row in rows), pad_to)
    inputs, targets = np.zeros((2, len(rows), width), dtype=np.int32)
    weights = np.zeros((len(rows), width), dtype=np.float32)
    for place, row in enumerate(rows):
        sequence, length = sequences[row], len(sequences[row]) - 1
        inputs[place, :length] = sequence.tokens[:-1]
        targets[place, :length] = sequence.tokens[1:]
        weights[place, :length] = sequence.trained[1:]
    return Batch(inputs, targets, weights, tuple(int(row) for row in rows))


@dataclass(frozen=True)
class Schedule:
    """Which sequences stand in which batch: `batch(step)` for step 0, 1, 2 ... over as many epochs as asked."""

    sequences: list
    batch_size: int
    seed: int
    pad_to: int = PAD_TO

    @cached_property
    def lengths(self):
        return np.array([len(sequence) for sequence in self.sequences])

    @property
    def batches_per_epoch(self):
        return -(-len(self.sequences) // self.batch_size)

    def epoch_plan(self, epoch):
        """The epoch's batches as a list of index arrays."""
        random = np.random.default_rng([self.seed, epoch])
        stretched = self.lengths * (1 + STRETCH * random.random(len(self.lengths)))
        order = np.argsort(stretched, kind="stable")
        sizes = np.full(self.batches_per_epoch, self.batch_size)
        sizes[random.integers(len(sizes))] -= sizes.sum() - len(
            order
        )  # a short batch is not always the longest rows'
        batches = np.split(order, np.cumsum(sizes)[:-1])
        return [batches[place] for place in random.permutation(len(batches))]

    def padding(self, epoch=0):
        """(share of an epoch's positions that are padding, distinct shapes (B, T) of its batches)."""
        plan = self.epoch_plan(epoch)
        shapes = [(len(rows), padded_width(self.lengths[rows].max(), self.pad_to)) for rows in plan]
        positions = sum(rows * width for rows, width in shapes)
        return 1 - float((self.lengths - 1).sum() / positions), len(set(shapes))

    def batch(self, step):
        """The batch of `step` (from 0)."""
        epoch, place = divmod(step, self.batches_per_epoch)
        if self.__dict__.get("_epoch") != epoch:
            self.__dict__.update(_epoch=epoch, _plan=self.epoch_plan(epoch))
        return padded(self.sequences, self.__dict__["_plan"][place], self.pad_to)


def in_order(sequences, batch_size):
    """Every sequence once, longest batches last, as batches: for evaluation, the same each time."""
    order = np.argsort([len(sequence) for sequence in sequences], kind="stable")
    return [padded(sequences, order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
