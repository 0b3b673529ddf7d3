"""How batches make updates: windows of --grad-accumulation-steps batches, none of which reaches over the end of an epoch.

So each epoch visits every row exactly once, its last window short where the numbers do not divide.
"""

import math


def updates_per_epoch(batches, accumulated):
    """Updates in an epoch of `batches`, `accumulated` of them to an update."""
    return -(-batches // accumulated)


def updates_of(epochs, batches, accumulated):
    """Updates that `epochs` take, at least one; a begun update counts whole."""
    return max(
        1, math.ceil(epochs * updates_per_epoch(batches, accumulated) - 1e-9)
    )  # 0.1 x 30 is a little above 3


def steps_of(update, batches, accumulated):
    """The numbers, over all epochs, of the batches of update number `update` (from 0)."""
    epoch, place = divmod(update, updates_per_epoch(batches, accumulated))
    start = place * accumulated
    return range(epoch * batches + start, epoch * batches + min(start + accumulated, batches))
