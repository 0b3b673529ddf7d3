"""Learning rate schedules by name, counted in optimizer updates (not batches): constant, linear, cosine, step.

With warm-up N the rate rises over updates 1 ... N to its peak at update N + 1, never starting at 0, where an update would
change nothing. After it the rate follows the schedule; linear and cosine arrive at the final rate with the run's end, as
Hugging Face's schedules do. mlx-lm's own form (a name of mlx.optimizers with its arguments) is taken as it is.
"""

import math

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx_lm.tuner.utils import build_schedule

from lab.cli import LabError

STEPS = 3  # --lr-schedule step without --decay-every: the run in so many parts


def learning_rate(settings):
    """The rate as mlx.optimizers takes it: a number, or a function of the updates made so far (an array, 0 at first).

    Raises LabError for a warm-up that fills the run.
    """
    if isinstance(settings.lr_schedule, dict):
        return build_schedule(settings.lr_schedule)
    if settings.warmup >= settings.iters and settings.warmup:
        raise LabError(
            f"--warmup {settings.warmup}: the run has only {settings.iters} optimizer updates; give less"
        )
    if settings.lr_schedule in (None, "constant") and not settings.warmup:
        return settings.learning_rate
    return lambda made: _rate(settings, made.astype(mx.float32))


def _rate(settings, made):
    peak, warmup = settings.learning_rate, settings.warmup
    rising = peak * (made + 1) / (warmup + 1)
    return mx.where(made < warmup, rising, _after_warmup(settings, mx.maximum(made - warmup, 0.0)))


def _after_warmup(settings, made):
    """The rate when `made` updates have passed since the warm-up."""
    peak, final = settings.learning_rate, settings.final_learning_rate
    if settings.lr_schedule == "step":
        return peak * settings.decay_rate ** mx.floor(made / decay_every(settings))
    share = mx.minimum(made / (settings.iters - settings.warmup), 1.0)
    if settings.lr_schedule == "cosine":
        return final + (peak - final) * (1 + mx.cos(math.pi * share)) / 2
    if settings.lr_schedule == "linear":
        return peak + (final - peak) * share
    return mx.full(made.shape, peak)


def decay_every(settings):
    """How many updates --lr-schedule step keeps a rate."""
    return settings.decay_every or max(1, (settings.iters - settings.warmup) // STEPS)


def describe(settings):
    """One line for people: the rate over the run, in optimizer updates."""
    return f"learning rate: {_course(settings)}; counted in optimizer updates, {settings.iters} at most"


def _course(settings):
    chosen = settings.lr_schedule
    if isinstance(chosen, dict):
        warmup = f"{chosen['warmup']} updates of warm-up, then " if chosen["warmup"] else ""
        return f"{warmup}{chosen['name']}({', '.join(f'{value:g}' for value in chosen['arguments'])})"
    peak, final, warmup = settings.learning_rate, settings.final_learning_rate, settings.warmup
    start = f"{warmup} updates of warm-up to {peak:g}" if warmup else f"{peak:g}"
    after = {
        "linear": f", then linear to {final:g}",
        "cosine": f", then cosine to {final:g}",
        "step": f", then times {settings.decay_rate:g} every {decay_every(settings)} updates",
    }
    return start + after.get(chosen, ", constant")
