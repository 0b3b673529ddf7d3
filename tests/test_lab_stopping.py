from lab.stopping import EarlyStopping


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
