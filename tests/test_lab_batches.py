from itertools import combinations

import numpy as np
import pytest

from lab.batches import PAD_TO, PLACES_TO, Schedule, in_order, padded
from lab.chat import Sequence


def sequences(number, longest=60):
    random = np.random.default_rng(1)
    lengths = random.integers(3, longest, number)
    rows = (random.integers(1, 2000, length).astype(np.int32) for length in lengths)
    return [
        Sequence(tokens, np.ones(len(tokens), dtype=bool), f"row {place}") for place, tokens in enumerate(rows)
    ]


@pytest.mark.parametrize(("number", "batch_size"), [(37, 8), (5, 8), (1, 4), (64, 16)])
def test_every_row_once_an_epoch(number, batch_size):
    schedule = Schedule(sequences(number), batch_size, seed=0)
    for epoch in range(3):
        steps = range(epoch * schedule.batches_per_epoch, (epoch + 1) * schedule.batches_per_epoch)
        rows = [row for step in steps for row in schedule.batch(step).rows]
        assert sorted(rows) == list(range(number))


def test_a_batch_is_a_pure_function_of_seed_and_step():
    data = sequences(50)
    forwards, backwards = Schedule(data, 8, 3), Schedule(data, 8, 3)
    steps = list(range(20))
    ahead = {step: forwards.batch(step).rows for step in steps}
    assert {step: backwards.batch(step).rows for step in reversed(steps)} == ahead
    assert any(Schedule(data, 8, 4).batch(step).rows != ahead[step] for step in steps)


def neighbours(schedule, epochs):
    """The pairs of rows that share a batch, one set an epoch."""
    plans = (schedule.epoch_plan(epoch) for epoch in epochs)
    return [{pair for batch in plan for pair in combinations(sorted(batch.tolist()), 2)} for plan in plans]


@pytest.mark.parametrize(("number", "again"), [(2000, 0.15), (200, 0.6)])
def test_rows_meet_other_rows_each_epoch(number, again):
    first, second = neighbours(Schedule(sequences(number, 301), 8, 0), (0, 1))
    assert len(first & second) < again * len(first)


def test_batches_of_one_length_come_in_no_order():
    schedule = Schedule(sequences(400, 301), 8, 0)
    lengths = [schedule.lengths[batch].mean() for batch in schedule.epoch_plan(0)]
    assert abs(np.corrcoef(np.arange(len(lengths)), lengths)[0, 1]) < 0.4


def test_sources_of_like_length_are_mixed():
    """Rows 0-199 are one source, 200-399 another: no batch of 8 often holds one of them alone."""
    schedule = Schedule(sequences(400, 301), 8, 0)
    alone = [len({int(row) // 200 for row in batch}) == 1 for batch in schedule.epoch_plan(0)]
    assert np.mean(alone) < 0.1


def test_the_short_batch_is_not_always_that_of_the_longest_rows():
    schedule = Schedule(sequences(101, 301), 8, 0)
    plans = [schedule.epoch_plan(epoch) for epoch in range(8)]
    short = [schedule.lengths[batch].mean() for plan in plans for batch in plan if len(batch) == 5]
    assert len(short) == 8
    assert max(short) - min(short) > 100


@pytest.mark.parametrize("spread", ["even", "skewed"])
def test_little_padding_in_few_shapes(spread):
    """Lengths 2 to 301, evenly spread or most of them short; 8 rows a batch, 2,000 rows. Sorted rows would waste a third less."""
    random = np.random.default_rng(0)
    skewed = np.clip(np.exp(random.normal(np.log(40), 0.9, 2000)), 2, 301).astype(int)
    lengths = random.integers(2, 302, 2000) if spread == "even" else skewed
    data = [Sequence(np.ones(length, dtype=np.int32), np.ones(length, dtype=bool)) for length in lengths]
    wasted, shapes = Schedule(data, 8, 0).padding()
    assert wasted < (0.065 if spread == "even" else 0.1)
    assert shapes <= 38
    order = random.permutation(2000)
    shuffled = sum(padded(data, order[start : start + 8]).weights.size for start in range(0, 2000, 8))
    assert wasted < (1 - (lengths - 1).sum() / shuffled) / 6


def test_the_padding_told_is_that_of_the_batches():
    schedule = Schedule(sequences(101, 301), 8, 3)
    batches = [schedule.batch(step) for step in range(schedule.batches_per_epoch)]
    wasted, shapes = schedule.padding()
    real = sum(len(item) - 1 for item in schedule.sequences)
    assert wasted == pytest.approx(1 - real / sum(batch.inputs.size for batch in batches))
    assert shapes == len({batch.inputs.shape for batch in batches})


def test_targets_are_the_next_tokens_and_padding_has_no_weight():
    data = [Sequence(np.array([5, 6, 7, 8], dtype=np.int32), np.array([0, 0, 1, 1], dtype=bool))]
    batch = padded(data, [0])
    assert batch.inputs.shape == (1, PAD_TO)
    assert batch.inputs[0, :3].tolist() == [5, 6, 7]
    assert batch.targets[0, :3].tolist() == [6, 7, 8]
    assert batch.weights[0].tolist() == [0, 1, 1] + [0] * (PAD_TO - 3)


def test_evaluation_takes_every_row_once():
    batches = in_order(sequences(21), 8)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(21))
    assert [len(batch.rows) for batch in batches] == [8, 8, 5]


def test_trained_positions_are_the_weighted_targets_in_order():
    data = [Sequence(np.array([5, 6, 7, 8], dtype=np.int32), np.array([0, 0, 1, 1], dtype=bool))] * 2
    batch = padded(data, [0, 1])
    places, targets, weights = batch.trained()
    assert len(places) == len(targets) == len(weights) == PLACES_TO
    assert weights.sum() == batch.weights.sum() == 4
    assert targets[:4].tolist() == [7, 8, 7, 8]
    assert batch.targets.reshape(-1)[places[:4]].tolist() == [7, 8, 7, 8]
