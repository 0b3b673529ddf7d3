"""What the trainer eats, as a pure function of (sequences, batch size, seed, step).

Every epoch shuffles the whole set, sorts it by length inside large windows, cuts it into batches (the last one may be
short: every sequence is used once an epoch) and shuffles the batches. Letters: B batch, T tokens.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

WINDOW = 16  # batches that are sorted by length together: little padding, and still truly mixed
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


def padded(sequences, rows, pad_to=PAD_TO):
    """The batch of the sequences at `rows`, padded at the end with zeros that carry no weight."""
    longest = max(len(sequences[row]) for row in rows) - 1
    width = -(-longest // pad_to) * pad_to
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
        order = random.permutation(len(self.sequences))
        span = WINDOW * self.batch_size
        windows = [order[start : start + span] for start in range(0, len(order), span)]
        order = np.concatenate([window[np.argsort(self.lengths[window], kind="stable")] for window in windows])
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return [batches[place] for place in random.permutation(len(batches))]

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
