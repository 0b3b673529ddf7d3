"""How far a run is: all that decides its course besides tensors and data, as plain values that JSON keeps exactly."""

import math
from dataclasses import asdict, dataclass, field

from lab.stopping import EarlyStopping, ForgettingGuard


def figure_of(settings, found):
    """What early stopping looks at, lower is better: the validation loss, or the share of facts not recalled."""
    return found["valid_loss"] if settings.early_stop_on == "loss" else 1 - found["recall"]


@dataclass
class RunState:
    """How far a run is, as JSON keeps it; losses in nats. `curve` holds one dict for each point that was measured."""

    iteration: int = 0  # updates made
    evaluated: int = -1  # the last iteration that was evaluated
    losses: float = 0.0  # summed since the last training line
    tokens: int = 0  # trained since then
    all_tokens: int = 0
    rate: float = 0.0  # of the last update
    stopped_by: str | None = None  # "patience" or "forgetting"
    curve: list = field(default_factory=list)
    stopping: EarlyStopping = field(default_factory=EarlyStopping)
    guard: ForgettingGuard = field(default_factory=ForgettingGuard)

    @classmethod
    def of(cls, content):
        """The RunState that `content()` described."""
        parts = {"stopping": EarlyStopping(**content["stopping"]), "guard": ForgettingGuard(**content["guard"])}
        return cls(**content | parts)

    def content(self):
        """All of it as JSON content; infinity, which JSON does not have, is left out and is the default."""
        content = asdict(self)
        content["stopping"] = {key: value for key, value in content["stopping"].items() if value != math.inf}
        return content

    def ended(self, settings):
        """Whether there is no update left to make."""
        return self.stopped_by is not None or self.iteration >= settings.iters

    def due(self, every, settings):
        """Whether something that happens `every` so many updates, and at the end, happens now."""
        return self.iteration % every == 0 or self.iteration == settings.iters

    def count(self, loss, tokens, rate):
        """Take in an update: its mean loss, trained tokens and learning rate."""
        self.iteration += 1
        self.losses, self.tokens, self.rate = self.losses + loss * tokens, self.tokens + tokens, rate
        self.all_tokens += tokens

    def point(self, **measured):
        """Add what was measured at this iteration to the curve; None stands for what was not. Returns it."""
        row = {"iteration": self.iteration, **measured, "trained_tokens": self.all_tokens}
        self.curve.append({key: value for key, value in row.items() if value is not None})
        return self.curve[-1]

    def training_point(self):
        """The mean training loss since the last such point, as a point of the curve."""
        mean = self.losses / self.tokens
        self.losses, self.tokens = 0.0, 0
        return self.point(train_loss=mean, learning_rate=self.rate)

    def judge(self, settings, found):
        """Take in an evaluation's figures: is it the best, is it the end, is it a step back? Returns the curve's point.

        What the run was given counts as a candidate where it was trained before, or where a guard may find nothing better.
        """
        self.evaluated = self.iteration
        inside = self.guard.update(found.get("guard_loss"))
        counts = self.iteration or settings.resume_adapter_file or self.guard.limit is not None
        if counts and self.stopping.update(self.iteration, figure_of(settings, found), inside):
            self.stopped_by = "patience"
        goes_on = self.iteration < settings.iters and not self.stopped_by
        back = goes_on and self.guard.step_back()
        if not inside and not back and not self.stopped_by:
            self.stopped_by = "forgetting"
        return self.point(**found, best=self.stopping.is_best or None, stepped_back=back or None)
