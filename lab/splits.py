"""Rows by groups into train, valid and test, by hash: rows that are added later move none of the others.

A group's hash is 64 bits of SHA-256 over the seed and what names the group; as a fraction of 2**64 it says the part.
"""

import hashlib

import numpy as np

PARTS = ("train", "valid", "test")


def group_hash(seed, name):
    """The hash, 0 to 2**64 - 1, of the group that `name` names."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{name}".encode()).digest()[:8], "big")


class Split:
    """Which part a group goes to: test takes the lowest hashes, valid the next.

    A part whose share is above 0 takes the group nearest to its hashes where it would stand empty, as long as a group
    can be spared: train comes first, then valid. `groups` are the hashes of all rows, (N,) uint64.
    """

    def __init__(self, groups, valid_share, test_share):
        self.distinct, self.sizes = np.unique(np.asarray(groups, np.uint64), return_counts=True)
        self._ends = int(test_share * 2**64), int((test_share + valid_share) * 2**64)
        self._moved = {}
        places = np.searchsorted(self.distinct, np.array([min(end, 2**64 - 1) for end in self._ends], np.uint64))
        test, valid = int(places[0]), int(places[1] - places[0])
        counts = [len(self.distinct) - test - valid, valid, test]
        for part, share in enumerate((1, valid_share, test_share)):
            if share and not counts[part]:
                self._fill(part, counts)

    def _fill(self, part, counts):
        """Give an empty part one group: train takes it from any, valid and test where one is left over."""
        middle = (2**64, sum(self._ends) // 2, 0)[part]
        nearest = sorted((int(group) for group in self.distinct), key=lambda group: abs(group - middle))
        for group in nearest:
            giver = self.part(group)
            if counts[giver] > 1 or giver > part:
                self._moved[group] = part
                counts[giver] -= 1
                counts[part] += 1
                return

    def part(self, group):
        """The index in PARTS of the part of a group hash."""
        if group in self._moved:
            return self._moved[group]
        return 2 if group < self._ends[0] else 1 if group < self._ends[1] else 0


class Links:
    """Groups that belong together: union-find over group hashes; of two the one that was there first stands for both."""

    def __init__(self):
        self._parent = {}

    def __bool__(self):
        return bool(self._parent)

    def join(self, later, earlier):
        """Put the groups of two hashes together."""
        later, earlier = self.first(later), self.first(earlier)
        if later != earlier:
            self._parent[later] = earlier

    def first(self, group):
        """The hash that stands for the group of `group`."""
        while (parent := self._parent.get(group)) is not None:
            if (above := self._parent.get(parent)) is not None:
                self._parent[group] = above
            group = parent
        return group
