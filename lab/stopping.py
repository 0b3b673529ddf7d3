"""Early stopping, apart from any loop."""

import math
from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Stop when the validation loss has not improved by `min_delta` nats/token for `patience` evaluations in a row.

    `patience` 0 never stops. The best adapter is the one with the lowest loss, however small its lead: `is_best` says
    after each update whether that was this one.
    """

    patience: int = 0
    min_delta: float = 0.0
    best_loss: float = math.inf
    best_iteration: int = 0
    reference: float = math.inf
    waited: int = 0
    is_best: bool = False

    def update(self, iteration, loss):
        """Take in the loss (nats/token) after `iteration` updates; returns whether to stop now."""
        self.is_best = loss < self.best_loss
        if self.is_best:
            self.best_loss, self.best_iteration = loss, iteration
        if loss < self.reference - self.min_delta:
            self.reference, self.waited = loss, 0
        else:
            self.waited += 1
        return 0 < self.patience <= self.waited
