"""Presets, flags over them, and draws that hang on seed, answer and token alone."""

import argparse

import pytest

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx_lm.sample_utils import make_repetition_penalty, make_sampler

from lab.cli import LabError
from lab.sampling import Sampling, add_flags, processors, sampler, sampling_of

VOCABULARY = 300
LOGITS = mx.random.normal((1, VOCABULARY), key=mx.random.key(1))
LOGPROBS = LOGITS - mx.logsumexp(LOGITS, keepdims=True)


def parsed(*flags):
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return sampling_of(parser.parse_args(flags))


def drawn(sampling, place, number=20):
    draw = sampler(sampling, place, VOCABULARY)
    return [draw(LOGPROBS).item() for _ in range(number)]


def test_flags_win_over_the_preset_and_the_preset_over_the_defaults():
    assert parsed() == parsed("--preset", "greedy") == Sampling()
    solar = parsed("--preset", "solar")
    assert (solar.temp, solar.top_p, solar.top_k, solar.repetition_penalty) == (0.3, 0.7, 25, 1.2)
    changed = parsed("--preset", "solar", "--top-k", "5", "--temp", "0.9", "--seed", "3")
    assert (changed.temp, changed.top_p, changed.top_k, changed.seed) == (0.9, 0.7, 5, 3)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--preset", "hot"], "--preset hot: no such preset; there are: greedy, solar"),
        (["--top-p", "0.5"], "--top-p: temp 0 draws nothing; give --temp, 0.7 say, or a --preset"),
        (["--preset", "solar", "--temp", "0", "--top-k", "5"], "--top-k: temp 0 draws nothing"),
        (["--repetition-context-size", "9"], "there is no penalty; give --repetition-penalty"),
    ],
)
def test_a_flag_that_would_do_nothing_is_one_line(flags, said):
    with pytest.raises(LabError) as error:
        parsed(*flags)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "flags",
    [
        *(["--temp", text] for text in ("-0.1", "nan", "inf", "warm")),
        *(["--top-p", text] for text in ("0", "1.1", "nan")),
        *(["--top-k", text] for text in ("-1", "1.5")),
        *(["--min-p", text] for text in ("-0.1", "1.01")),
        *(["--repetition-penalty", text] for text in ("0", "-1", "inf")),
        *(["--seed", text] for text in ("-1", "4294967296", "0.5")),
        ["--repetition-context-size", "-1"],
    ],
)
def test_values_out_of_range_are_a_usage_error_of_one_line(flags, capsys):
    with pytest.raises(SystemExit) as leaving:
        parsed(*flags)
    assert leaving.value.code == 2
    assert f"argument {flags[0]}: {flags[1]!r} is not " in capsys.readouterr().err.splitlines()[-1]


def test_a_draw_hangs_on_seed_and_place_and_on_nothing_drawn_between():
    hot = Sampling(temp=1.0, seed=7)
    alone = drawn(hot, 0)
    first, second = (sampler(hot, place, VOCABULARY) for place in (0, 1))
    between = [(first(LOGPROBS), second(LOGPROBS), mx.random.uniform()) for _ in range(20)]
    assert [token.item() for token, _, _ in between] == alone
    assert drawn(hot, 1) == [token.item() for _, token, _ in between] != alone
    assert drawn(Sampling(temp=1.0, seed=8), 0) != alone


def test_draws_follow_the_distribution_and_mlx_lm_s_filters():
    draw = sampler(Sampling(temp=1.0), 0, 3)
    shares = mx.log(mx.array([[0.6, 0.3, 0.1]]))
    tokens = [draw(shares).item() for _ in range(2000)]
    counts = [tokens.count(token) / len(tokens) for token in range(3)]
    assert counts == pytest.approx([0.6, 0.3, 0.1], abs=0.04)
    best = mx.argsort(-LOGPROBS[0])[:5].tolist()
    assert set(drawn(Sampling(temp=1.0, top_k=5), 0, 100)) <= set(best)
    assert set(drawn(Sampling(temp=1.0, top_k=1), 0, 5)) == {best[0]}
    assert set(drawn(Sampling(temp=1.0, min_p=0.5), 0, 60)) < set(range(VOCABULARY))
    assert sampler(Sampling(), 0, VOCABULARY) is None


def test_a_top_k_of_the_whole_vocabulary_filters_nothing():
    with pytest.raises(ValueError, match="top_k"):  # mlx-lm alone
        make_sampler(1.0, top_k=VOCABULARY)(LOGPROBS)
    assert drawn(Sampling(temp=1.0, top_k=VOCABULARY), 0) == drawn(Sampling(temp=1.0), 0)


@pytest.mark.parametrize(("size", "seen"), [(0, [1, 2, 3, 4, 5]), (3, [3, 4, 5]), (2, [4, 5])])
def test_the_penalty_sees_what_a_cache_holds_and_a_size_of_0_is_everything(size, seen):
    expected = make_repetition_penalty(1.5, 99)(mx.array(seen), mx.array(LOGITS))
    sampling = Sampling(repetition_penalty=1.5, repetition_context_size=size)
    for before, rest in (((), [1, 2, 3, 4, 5]), ([1, 2, 3, 4], [5])):
        (process,) = processors(sampling, before)
        assert mx.array_equal(process(mx.array(rest), mx.array(LOGITS)), expected)
    assert not mx.array_equal(expected, LOGITS)
    assert processors(Sampling()) == []
