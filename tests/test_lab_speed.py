"""Speed is measured alike for all stages: in turns, with as many tokens, and the base is left as it was."""

import time

import pytest
from mlx.utils import tree_flatten

from lab import adapters, models, speed
from lab.cli import LabError
from lab.device import mx
from lab.stages import Stage
from tests.test_lab_adapters import CONFIG, FULL, logits, random_adapter, unquantized  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def stages(unquantized, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("adapters")
    kinds = {"lora": CONFIG, "dora": {**CONFIG, "fine_tune_type": "dora"}, "full": {**FULL, "num_layers": -1}}
    for name, config in kinds.items():
        random_adapter(unquantized, folder / name, config)
    return [Stage("base", None), *(Stage(name, folder / name) for name in kinds)]


def test_the_base_is_the_same_bit_for_bit_after_every_kind_of_adapter(unquantized, stages):  # noqa: F811
    bare, weights = logits(unquantized), dict(tree_flatten(unquantized.parameters()))
    for stage in stages[1:]:
        models.switch_adapter(unquantized, stage.adapter)
        assert not mx.array_equal(logits(unquantized), bare), stage.name
        models.switch_adapter(unquantized, None)
        assert mx.array_equal(logits(unquantized), bare), stage.name
    speed.measure(unquantized, stages, [[5, 6, 7, 8]], 3, 1)
    assert mx.array_equal(logits(unquantized), bare)
    after = dict(tree_flatten(unquantized.parameters()))
    assert after.keys() == weights.keys() and all(mx.array_equal(after[name], weights[name]) for name in weights)


def test_all_stages_take_turns_and_say_as_much(unquantized, stages, monkeypatch):  # noqa: F811
    turns, tokens = [], []
    turn, step = speed._turn, speed.generate_step
    monkeypatch.setattr(speed, "_turn", lambda *rest: turns.append(rest[1]) or turn(*rest))

    def counted(*rest, **more):
        for token in step(*rest, **more):
            tokens.append(more["max_tokens"])
            yield token

    monkeypatch.setattr(speed, "generate_step", counted)
    found = speed.measure(unquantized, stages, [[5, 6, 7], [8, 9]], 4, 2)
    order = [stage.adapter for stage in stages]
    second, third = [*order[1:], *order[:1]][::-1], [*order[2:], *order[:2]]
    assert turns == [*order, *second, *second, *third, *third, *[*order[3:], *order[:3]][::-1]]
    assert tokens.count(4) == 3 * 4 * 2 * 4  # rounds, the first a warm-up; stages, questions, tokens
    for stage in stages:
        figures = found[stage.name]
        assert len(figures["rounds"]) == 2 and ("ratio" in figures) == (figures["load_seconds"] is not None)
        assert ("ratio" in figures) == (stage.adapter is not None)


def test_what_the_last_answer_left_at_work_is_not_timed(unquantized, monkeypatch):  # noqa: F811
    """A token computed ahead is as long as reading a short question: the clock is read when it is done."""
    events, wait, clock = [], mx.synchronize, time.perf_counter
    monkeypatch.setattr(mx, "synchronize", lambda stream: events.append(stream) or wait(stream))
    monkeypatch.setattr(time, "perf_counter", lambda: events.append("clock") or clock())
    speed._answer(unquantized, [5, 6, 7], 2)
    assert events[:2] == [speed.generation_stream, "clock"]


def test_memory_of_a_full_adapter_leaves_out_the_base_kept_beside_it(unquantized, stages):  # noqa: F811
    """In a load of its own the base's weights would not be there."""
    found = speed.measure(unquantized, [stages[0], stages[3]], [[5, 6, 7, 8]], 3, 1)
    size = sum(value.nbytes for _, value in tree_flatten(unquantized.parameters()))
    assert found["base"]["peak_bytes"] > size
    assert found["full"]["peak_bytes"] == pytest.approx(found["base"]["peak_bytes"], rel=0.1)


def test_an_adapter_that_does_not_fit_is_named(unquantized, stages, tmp_path):  # noqa: F811
    tensors = adapters.read_weights(stages[1].adapter / "adapters.safetensors")
    adapters.save(tmp_path, dict(list(tensors.items())[1:]), CONFIG)
    with pytest.raises(LabError, match="does not fit"):
        speed.measure(unquantized, [stages[0], Stage("half", tmp_path)], [[5, 6]], 2, 1)
    adapters.remove(unquantized)


def test_a_spread_is_the_median_and_the_quartiles():
    assert speed.spread([3.0]) == {"median": 3.0, "low": 3.0, "high": 3.0}
    assert speed.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}
