import pytest

from lab.stopping import STEPS_BACK, EarlyStopping, ForgettingGuard


def fed(stopping, losses):
    return [stopping.update(iteration, loss) for iteration, loss in enumerate(losses, 1)]


def test_stops_after_patience_evaluations_without_improvement():
    stopping = EarlyStopping(patience=2)
    assert fed(stopping, [3.0, 2.0, 2.5, 2.1]) == [False, False, False, True]
    assert (stopping.best_iteration, stopping.best) == (2, 2.0)


def test_patience_zero_never_stops():
    assert not any(fed(EarlyStopping(), [1.0] * 50))


def test_small_steps_are_no_improvement_but_the_lowest_is_still_the_best():
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    assert fed(stopping, [1.0, 0.95, 0.92]) == [False, False, True]
    assert (stopping.best_iteration, stopping.is_best) == (3, True)


def test_slow_but_steady_improvement_counts_when_it_adds_up():
    assert not any(fed(EarlyStopping(patience=2, min_delta=0.1), [1.0, 0.94, 0.88, 0.82, 0.76]))


def test_what_forgot_too_much_is_neither_best_nor_an_improvement():
    stopping = EarlyStopping(patience=2)
    assert [stopping.update(1, 3.0), stopping.update(2, 1.0, allowed=False)] == [False, False]
    assert (stopping.best, stopping.best_iteration, stopping.is_best, stopping.waited) == (3.0, 1, False, 1)
    assert stopping.update(3, 0.5, allowed=False)


def test_the_guard_measures_from_the_first_loss_and_the_limit_itself_is_inside():
    guard = ForgettingGuard(limit=0.5)
    assert [guard.update(loss) for loss in (2.0, 2.5, 1.0, 2.51)] == [True, True, True, False]
    assert guard.start == 2.0
    assert not guard.step_back(), "the action is to stop"


@pytest.mark.parametrize(("limit", "losses"), [(None, (2.0, 9.0)), (0.1, (None, None))])
def test_without_limit_or_rows_everything_is_inside(limit, losses):
    guard = ForgettingGuard(limit=limit)
    assert all(guard.update(loss) for loss in losses)


def test_steps_back_are_counted_and_halve_the_rate_each_time():
    guard = ForgettingGuard(limit=0.0, action="restore")
    guard.update(1.0)
    assert not guard.step_back(), "it is inside"
    guard.update(1.1)
    assert [guard.step_back() for _ in range(STEPS_BACK + 1)] == [True] * STEPS_BACK + [False]
    assert guard.slowed == 0.5**STEPS_BACK
