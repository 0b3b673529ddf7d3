import pytest

from lab.epochs import steps_of, updates_of, updates_per_epoch


@pytest.mark.parametrize("accumulated", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("batches", [1, 2, 5, 7])
def test_every_epoch_visits_every_batch_once_and_in_order(batches, accumulated):
    updates = updates_of(3, batches, accumulated)
    steps = [step for update in range(updates) for step in steps_of(update, batches, accumulated)]
    assert steps == list(range(3 * batches))
    assert updates == 3 * updates_per_epoch(batches, accumulated)


@pytest.mark.parametrize(
    ("epochs", "batches", "accumulated", "updates"),
    [(1, 5, 2, 3), (0.5, 4, 1, 2), (0.5, 5, 1, 3), (0.1, 30, 1, 3), (0.001, 5, 1, 1), (2, 5, 8, 2)],
)
def test_epochs_in_updates(epochs, batches, accumulated, updates):
    assert updates_of(epochs, batches, accumulated) == updates


def test_a_window_ends_with_its_epoch():
    assert [list(steps_of(update, 5, 2)) for update in range(4)] == [[0, 1], [2, 3], [4], [5, 6]]
