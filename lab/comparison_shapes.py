"""The shape of a comparison's JSON (models.json, tuning.json), as lab.shapes has it for the others."""

from typing import Annotated

from pydantic import Field, model_validator

from lab.shapes import Count, Loose, Report, Share

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Spread(Loose):
    """As lab.speed.spread makes it."""

    median: Amount
    low: Amount
    high: Amount


class Speed(Loose):
    """One stage's speed."""

    first_token_seconds: Spread
    prefill_tokens_per_second: Spread
    decode_tokens_per_second: Spread
    load_seconds: Spread | None
    peak_bytes: Count
    ratio: dict[str, Spread] | None = None


class Asked(Loose):
    """How speed was measured."""

    prompts: Count
    prompt_tokens: Count
    new_tokens: Count
    repeats: Count


class ModelSize(Loose):
    """Of the model without adapters."""

    bytes: Count
    parameters: Count


class Size(Loose):
    """Of an adapter."""

    kind: str
    bytes: Count
    trained_parameters: Count
    share: Share


class Cost(Loose):
    """What training an adapter took: all of cost.json, or nothing of it."""

    seconds: Amount | None = None
    updates: Count | None = None
    process_bytes: Count | None = None
    device_bytes: Count | None = None
    iterations: Count | None = None
    best_iteration: Count | None = None
    best_valid_loss: float | None = None

    @model_validator(mode="after")
    def _whole(self):
        known = [self.seconds, self.updates, self.process_bytes, self.device_bytes]
        if None in known and known != [None] * len(known):
            raise ValueError("seconds, updates, process_bytes and device_bytes stand together")
        return self


class Row(Loose):
    """An answer."""

    metric: str
    id: str
    prompt: str
    answer: str
    right: bool | None


class Comparison(Report):
    """models.json and tuning.json."""

    speed: dict[str, Speed]
    asked: Asked
    model_size: ModelSize
    sizes: dict[str, Size]
    training: dict[str, Cost]
    answers: dict[str, list[Row]]
    peak: dict[str, Count] = {}
    load_seconds: Amount | None = None

    @model_validator(mode="after")
    def _of_its_stages(self):
        named = (self.model_extra or {}).get("stages") or {}
        for key in ("speed", "sizes", "training", "answers"):
            if unknown := getattr(self, key).keys() - named.keys():
                raise ValueError(f"{key} of a stage that is none: {min(unknown)!r}")
        if len({tuple(row.id for row in rows) for rows in self.answers.values()}) > 1:
            raise ValueError("answers: the stages were not asked the same questions")
        return self
