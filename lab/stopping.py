"""When to stop, and which adapter is the best: early stopping and the forgetting guard, apart from any loop."""

import math
from dataclasses import dataclass

STEPS_BACK = 3  # the rate is then an eighth; a run that still forgets is stopped


@dataclass
class EarlyStopping:
    """Stop when a figure (lower is better) has not improved by `min_delta` for `patience` evaluations in a row.

    The figure is the validation loss in nats/token, or the share of facts not recalled. `patience` 0 never stops. The best
    adapter is the first with the lowest figure, however small its lead: `is_best` says after each update whether that was
    this one.
    """

    patience: int = 0
    min_delta: float = 0.0
    best: float = math.inf
    best_iteration: int = 0
    reference: float = math.inf
    waited: int = 0
    is_best: bool = False

    def update(self, iteration, figure, allowed=True):
        """Take in the figure after `iteration` updates; returns whether to stop now.

        An adapter that is not `allowed` (it has forgotten too much) is neither the best nor an improvement.
        """
        self.is_best = allowed and figure < self.best
        if self.is_best:
            self.best, self.best_iteration = figure, iteration
        if allowed and figure < self.reference - self.min_delta:
            self.reference, self.waited = figure, 0
        else:
            self.waited += 1
        return 0 < self.patience <= self.waited


@dataclass
class ForgettingGuard:
    """Follow the loss on general text: it may rise by `limit` nats/token above its value at the run's start.

    `limit` None only watches. With `action` "stop" the first loss outside ends the run; with "restore" the run steps back
    to its last evaluation inside and goes on at half the rate, STEPS_BACK times at most.
    """

    limit: float | None = None
    action: str = "stop"
    start: float | None = None
    steps_back: int = 0
    inside: bool = True

    def update(self, loss):
        """Take in the loss on general text (None: there is no guard data); returns whether it is inside the limit."""
        if loss is not None and self.start is None:
            self.start = loss
        self.inside = loss is None or self.limit is None or loss - self.start <= self.limit
        return self.inside

    def step_back(self):
        """After a loss outside: whether the run may step back and go on (counted), or must end."""
        if self.inside or self.action != "restore" or self.steps_back >= STEPS_BACK:
            return False
        self.steps_back += 1
        return True

    @property
    def slowed(self):
        """What the learning rate is multiplied by."""
        return 0.5**self.steps_back
