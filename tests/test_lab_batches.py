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


def test_epochs_differ_and_rows_do_not_always_meet_the_same_neighbours():
    schedule = Schedule(sequences(300), 4, 0)
    first, second = ({frozenset(batch.tolist()) for batch in schedule.epoch_plan(epoch)} for epoch in (0, 1))
    assert len(first & second) < len(first) / 2


def test_grouping_by_length_halves_the_padding():
    data = sequences(400)
    grouped = sum(batch.weights.size for batch in map(Schedule(data, 8, 0).batch, range(50)))
    order = np.random.default_rng(0).permutation(400)
    shuffled = sum(padded(data, order[start : start + 8]).weights.size for start in range(0, 400, 8))
    used = sum(len(item) - 1 for item in data)
    assert grouped - used < (shuffled - used) / 2


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
