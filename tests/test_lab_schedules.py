"""Rates by the update, as the optimizer itself sees them."""

import math

import mlx.optimizers as optim
import pytest

from lab.cli import LabError
from lab.device import mx
from lab.schedules import describe, learning_rate
from lab.settings import resolve


def settings_of(**flags):
    return resolve({"model": "m", "data": "d", "learning_rate": 1.0, **flags})[0]


def rates(settings):
    """The rate of every update of a run, read off a plain gradient step of size 1."""
    optimizer = optim.SGD(learning_rate=learning_rate(settings))
    place, found = {"x": mx.array(0.0)}, []
    for _ in range(settings.iters):
        after = optimizer.apply_gradients({"x": mx.array(1.0)}, place)
        found.append((place["x"] - after["x"]).item())
    return found


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ({}, [1, 1, 1, 1]),
        ({"lr_schedule": "constant", "warmup": 3}, [0.25, 0.5, 0.75, 1]),
        ({"lr_schedule": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"lr_schedule": "linear", "final_learning_rate": 0.2}, [1, 0.8, 0.6, 0.4]),
        ({"lr_schedule": "cosine"}, [(1 + math.cos(math.pi * done / 4)) / 2 for done in range(4)]),
        ({"lr_schedule": "cosine", "warmup": 1, "iters": 3}, [0.5, 1, 0.5]),
        ({"lr_schedule": "step", "decay_every": 2, "decay_rate": 0.5}, [1, 1, 0.5, 0.5]),
        ({"lr_schedule": "step", "iters": 6}, [1, 1, 0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_the_rate_of_every_update(flags, wanted):
    assert rates(settings_of(**{"iters": 4, **flags})) == pytest.approx(wanted, abs=1e-6)


def test_after_the_warm_up_the_rates_are_hugging_faces():
    """Source: transformers.get_cosine_schedule_with_warmup, lambda of the update from 0."""
    warmup, total = 3, 11
    theirs = [0.5 * (1 + math.cos(math.pi * (done - warmup) / (total - warmup))) for done in range(warmup, total)]
    assert rates(settings_of(lr_schedule="cosine", warmup=warmup, iters=total))[warmup:] == pytest.approx(
        theirs, abs=1e-6
    )


def test_mlx_lms_own_form_is_taken_as_it_is(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("lr_schedule: {name: linear_schedule, arguments: [1, 0, 4]}\niters: 4\n", encoding="utf-8")
    settings = resolve({"model": "m", "data": "d", "config": path})[0]
    assert rates(settings) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert "linear_schedule(1, 0, 4)" in describe(settings)


def test_a_warm_up_that_fills_the_run_is_refused():
    with pytest.raises(LabError, match="--warmup 4: the run has only 4 optimizer updates"):
        learning_rate(settings_of(warmup=4, iters=4))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({}, "learning rate: 1, constant; counted in optimizer updates, 9 at most"),
        ({"lr_schedule": "cosine", "warmup": 2}, "2 updates of warm-up to 1, then cosine to 0"),
        ({"lr_schedule": "step"}, "1, then times 0.1 every 3 updates"),
    ],
)
def test_the_course_in_words(flags, said):
    assert said in describe(settings_of(iters=9, **flags))
