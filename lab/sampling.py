"""How the next token is chosen: mlx-lm's flags, presets under them, and draws that a seed repeats whatever the batch size."""

import argparse
import math
import random
from dataclasses import asdict, dataclass

from lab.cli import LabError

# Source: the SOLAR seed's "recommended, verified" values. It runs on transformers, where the penalty sees the whole context
# and the temperature comes before the filters; mlx-lm filters first, which leaves more tokens to draw from.
PRESETS = {
    "greedy": {"temp": 0.0},
    "solar": {
        "temp": 0.3,
        "top_p": 0.7,
        "top_k": 25,
        "repetition_penalty": 1.2,
        "repetition_context_size": 0,
    },
}
NEED_DRAWS = ("top_p", "top_k", "min_p")
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Sampling:
    """mlx-lm's settings and defaults; temp 0 takes the likeliest token. A `repetition_context_size` of 0 is all tokens."""

    temp: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_context_size: int = 20
    seed: int = 0

    def as_json(self):
        """The settings by name."""
        return asdict(self)


def between(kind, low, high, words):
    """A flag's value of type `kind` from `low` to `high`; `words` say so. Its parser raises ArgumentTypeError."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or math.isinf(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return value

    return parse


def add_flags(parser):
    """The flags of `sampling_of`; none has a default, so that what is given wins over the preset."""
    add, share = parser.add_argument_group("sampling").add_argument, between(float, 0, 1, "from 0 to 1")
    above_0 = between(float, math.nextafter(0, 1), math.inf, "above 0")
    count = between(int, 0, math.inf, "a whole number of at least 0")
    nucleus = between(float, math.nextafter(0, 1), 1, "above 0 and at most 1")
    add("--preset", help=f"{' or '.join(PRESETS)} (the SOLAR seed's values); flags win over it (greedy)")
    add("--temp", type=between(float, 0, math.inf, "0 or more"), help="temperature; 0: the likeliest token")
    add("--top-p", type=nucleus, help="draw from the likeliest tokens of this share together (1)")
    add("--top-k", type=count, help="draw from so many of the likeliest tokens (0: all)")
    add("--min-p", type=share, help="leave out tokens below this share of the likeliest one's probability (0)")
    add("--repetition-penalty", type=above_0, help="above 1 makes what stands in the last tokens less likely (1)")
    add("--repetition-context-size", type=count, help="how many last tokens, prompt included (20; 0: all)")
    seed = between(int, 0, LARGEST_SEED, f"a whole number from 0 to {LARGEST_SEED}")
    add(
        "--seed",
        type=seed,
        help="the same seed draws the same, one by one or in any batch size, but for rounding (0)",
    )


def sampling_of(args):
    """The Sampling of parsed flags: the preset, then the flags that are given.

    Raises LabError for an unknown preset, and for a flag that would do nothing.
    """
    if args.preset is not None and args.preset not in PRESETS:
        raise LabError(f"--preset {args.preset}: no such preset; there are: {', '.join(PRESETS)}")
    names = Sampling.__dataclass_fields__
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    chosen = Sampling(**{**PRESETS[args.preset or "greedy"], **given})
    if chosen.temp == 0 and (idle := [name for name in NEED_DRAWS if name in given]):
        raise LabError(f"--{idle[0].replace('_', '-')}: temp 0 draws nothing; give --temp, 0.7 say, or a --preset")
    if chosen.repetition_penalty == 1 and "repetition_context_size" in given:
        raise LabError("--repetition-context-size: there is no penalty; give --repetition-penalty, 1.1 say")
    return chosen


def sampler(sampling, place, vocabulary):
    """What draws the tokens of answer number `place`, (1, V) log-probabilities to (1,), or None for the likeliest.

    mlx-lm's sampler, seeded anew for every token: what is drawn hangs on seed, place and token alone, not on what
    else is drawn between. `vocabulary` is V. What a batch rounds otherwise can still tip a draw: one of 30 answers of up
    to 900 tokens at temp 3 parted after 500.
    """
    if sampling.temp == 0:
        return None
    from mlx_lm.sample_utils import make_sampler

    from lab.device import mx

    top_k = sampling.top_k if sampling.top_k < vocabulary else 0  # mlx-lm refuses to filter nothing
    draw = make_sampler(sampling.temp, sampling.top_p, sampling.min_p, top_k=top_k)
    seeds = random.Random(f"seed {sampling.seed}, answer {place}")

    def seeded(logprobs):
        mx.random.seed(seeds.getrandbits(64))
        return draw(logprobs)

    return seeded


def processors(sampling, before=()):
    """mlx-lm's logits processors: the repetition penalty, or nothing.

    `before` are the tokens of the prompt that a cache holds: mlx-lm passes only those behind them.
    """
    if sampling.repetition_penalty == 1:
        return []
    from mlx_lm.sample_utils import make_logits_processors

    from lab.device import mx

    penalty, size = (
        sampling.repetition_penalty,
        sampling.repetition_context_size,
    )  # 0 as in tokens[-0:], which is all
    made = make_logits_processors(repetition_penalty=penalty, repetition_context_size=size)
    if not before:
        return made
    known = mx.array(before)
    return [
        lambda tokens, logits, process=process: process(mx.concatenate([known, tokens]), logits)
        for process in made
    ]
