"""Early stopping, apart from any loop."""

import math
from dataclasses import dataclass


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

    def update(self, iteration, figure):
        """Take in the figure after `iteration` updates; returns whether to stop now."""
        self.is_best = figure < self.best
        if self.is_best:
            self.best, self.best_iteration = figure, iteration
        if figure < self.reference - self.min_delta:
            self.reference, self.waited = figure, 0
        else:
            self.waited += 1
        return 0 < self.patience <= self.waited
