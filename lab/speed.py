"""How fast each stage answers: the same prompts, the same number of new tokens, the stages in turn.

A stage that says less would look faster, so every answer has exactly so many tokens, end tokens or not. The stages take
turns at every prompt (A B C, then A C B): what else the machine does hits all of them alike, and each is compared with the
base of its own round, that is once over all prompts. With turns of a whole round, on a busy machine, a full adapter came
out 1.4 times as fast as the base, which computes the same. A first round warms up and is thrown away. One prompt at a time,
greedily: the time to the first token is what a person waits for.
"""

import time
from statistics import mean, median, quantiles

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx_lm.generate import generate_step, generation_stream

from lab import adapters, models

FIGURES = ("first_token_seconds", "prefill_tokens_per_second", "decode_tokens_per_second")


def measure(model, stages, prompts, new_tokens, repeats):
    """{stage: figures} of `repeats` rounds; `prompts` are token lists, `stages` have a name and an adapter or None.

    Figures are {"rounds": [one dict a round], FIGURES: spread, "load_seconds": spread of putting the adapter on or None,
    "peak_bytes", "ratio": {figure: spread of the quotient by the base's of the same round}}; the base has no ratio.
    The model is left bare.
    """
    rounds = {stage.name: [] for stage in stages}
    for number in range(repeats + 1):
        turns = {stage.name: [] for stage in stages}
        for place, prompt in enumerate(prompts):
            for stage in _order(stages, number + place):
                turns[stage.name].append(_turn(model, stage.adapter, prompt, new_tokens))
        for name, own in turns.items() if number else ():
            rounds[name].append(_round(own, prompts, new_tokens))
    models.switch_adapter(model, None)
    base = next((rounds[stage.name] for stage in stages if stage.adapter is None), None)
    return {stage.name: _figures(rounds[stage.name], base if stage.adapter else None) for stage in stages}


def _order(stages, turn):
    """The stages from another one on at each turn, backwards at every other: none always follows the same one."""
    first = turn % len(stages)
    order = [*stages[first:], *stages[:first]]
    return order[::-1] if turn % 2 else order


def _turn(model, adapter, prompt, new_tokens):
    """One stage's answer: seconds to the first token, seconds for the others, seconds of loading, bytes at the peak."""
    models.switch_adapter(model, None)
    started = time.perf_counter()
    models.switch_adapter(model, adapter)
    mx.eval(model.parameters())
    loading = time.perf_counter() - started
    with models.suited_threads(model):
        _answer(model, prompt, 2)  # compiles what is new
        mx.reset_peak_memory()
        first, others = _answer(model, prompt, new_tokens)
        peak = mx.get_peak_memory() - adapters.set_aside(model)
    return first, others, loading if adapter else None, peak


def _round(turns, prompts, new_tokens):
    """The figures of one stage's turns at all prompts."""
    waited, spoken, loads, peaks = zip(*turns, strict=True)
    return {
        "first_token_seconds": mean(waited),
        "prefill_tokens_per_second": sum(map(len, prompts)) / sum(waited),
        "decode_tokens_per_second": len(prompts) * (new_tokens - 1) / sum(spoken),
        "load_seconds": None if None in loads else mean(loads),
        "peak_bytes": max(peaks),
    }


def _answer(model, prompt, new_tokens):
    """(seconds to the first token, seconds for the others) of one answer of `new_tokens` tokens."""
    mx.synchronize(generation_stream)  # mlx_lm computes a token ahead: the last answer's is still at work
    started = time.perf_counter()
    tokens = generate_step(mx.array(prompt), model, max_tokens=new_tokens)
    next(tokens)
    first = time.perf_counter()
    for _ in tokens:
        pass
    return first - started, time.perf_counter() - first


def _figures(rows, base):
    found = {"rounds": rows, **{figure: spread([row[figure] for row in rows]) for figure in FIGURES}}
    loads = [row["load_seconds"] for row in rows if row["load_seconds"] is not None]
    found |= {
        "load_seconds": spread(loads) if loads else None,
        "peak_bytes": max(row["peak_bytes"] for row in rows),
    }
    if base:
        pairs = list(zip(rows, base, strict=True))
        found["ratio"] = {
            figure: spread([own[figure] / other[figure] for own, other in pairs]) for figure in FIGURES
        }
    return found


def spread(values):
    """{"median", "low", "high"} of numbers; `low` and `high` are the quartiles."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": median(values), "low": low, "high": high}
