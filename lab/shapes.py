"""The shapes of the JSON that commands write, as far as the report page and the claims read it.

More keys are no fault, so that a command may write more than the page knows. Shares are from 0 to 1, losses in nats/token.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lab.report import METRICS

REPLAYS = ("none", "authored", "self")
VERDICTS = ("holds", "does not hold", "undecided", "not measured")

Share = Annotated[float, Field(ge=0, le=1)]
Points = Annotated[float, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0)]


class Loose(BaseModel):
    """An object with these keys, of these very types, and any others."""

    model_config = ConfigDict(strict=True, extra="allow")


class Counted(Loose):
    """As lab.stats.counted makes it."""

    correct: Count
    n: Count
    low: Share
    high: Share

    @model_validator(mode="after")
    def _at_most_all(self):
        if self.correct > self.n:
            raise ValueError(f"{self.correct} correct of {self.n} cannot be")
        return self


class Pair(Loose):
    """As lab.stats.paired makes it, with the names of the two."""

    first: str
    second: str
    n: Count
    only_first: Count
    only_second: Count
    difference: Points
    low: Points
    high: Points
    p: Share


class Schedule(Loose):
    """A learning-rate schedule in mlx-lm's form; --lr-schedule's own is its name alone."""

    name: str


class Flags(Loose):
    """The recorded flags of any command, as far as the page knows them."""

    model: str | None = None
    adapter_path: list[str] | str | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    max_forgetting: float | None = None
    limit: int | None = None
    lr_schedule: Schedule | str | None = None


class Summary(Loose):
    """What write_summary puts first."""

    command: str = ""
    flags: Flags = Flags()
    inputs: dict[str, str] = {}
    versions: dict[str, str | None] = {}
    commit: str = ""


class Macro(Loose):
    """The mean of the subjects' shares."""

    share: Share
    low: Share | None = None
    high: Share | None = None


class KmmluStage(Loose):
    """One stage's answers."""

    micro: Counted
    macro: Macro | None = None
    subjects: dict[str, Counted] = {}
    groups: dict[str, Counted] = {}
    letters: dict[str, Count] = {}
    answers: dict[str, Count] = {}
    warning: str | None = None


class Kmmlu(Summary):
    """kmmlu.json."""

    task: str
    source: str
    chance: Share
    stages: Annotated[dict[str, KmmluStage], Field(min_length=1)]
    paired: list[Pair] = []
    human: Share | None = None
    sample: bool = False
    shots: Count = 0
    chat: bool = False


Metrics = dict[Literal[tuple(METRICS)], Counted]


class Point(Loose):
    """One training run of the forgetting experiment."""

    name: str
    replay: Literal[REPLAYS]
    ratio: Share
    rows: dict[str, Any] | None = None
    metrics: Metrics


class Forgetting(Summary):
    """forgetting.json."""

    points: list[Point]
    base: Metrics
    default: str
    verdict: str = ""
    paired: dict[str, list[Pair]] = {}

    @model_validator(mode="after")
    def _named(self):
        names = [point.name for point in self.points]
        if self.default not in names or len(set(names)) < len(names):
            raise ValueError(
                f"default {self.default!r} must be one of the points, all of other names: {', '.join(names)}"
            )
        return self


class Training(Summary):
    """An adapter's summary.json."""

    iterations: int | None = None
    stopped_early: bool | None = None
    stopped_by: str | None = None
    best_iteration: int | None = None
    best_valid_loss: float | None = None


class CurvePoint(Loose):
    """A line of curve.jsonl; losses in nats/token."""

    iteration: Count
    train_loss: float = 0.0
    valid_loss: float = 0.0
    guard_loss: float = 0.0
    recall: float = 0.0


class Figure(Loose):
    """One condition of a claim and what became of it."""

    text: str
    verdict: Literal[VERDICTS]
    given: bool = False


class Claim(Loose):
    """A judged claim."""

    id: str
    claim: str
    claim_ko: str = ""
    seed: str = ""
    verdict: Literal[VERDICTS]
    doubted: str | None = None
    note: str | None = None
    make: list[str] = []
    figures: list[Figure]


class Claims(Summary):
    """claims.json."""

    claims: list[Claim]
    counts: dict[str, Count]


class Said(Loose):
    """A stage's answer."""

    answer: str
    right: bool | None  # None: not judged
    detail: str = ""


class Sample(Loose):
    """One question, every stage."""

    metric: str
    prompt: str
    answers: dict[str, Said]


class Data(Loose):
    """The counts of a data folder."""

    leak_guard: dict[str, dict[str, int]] | None = None


class Report(Summary):
    """report.json, besides what lab.report checks."""

    profile: str = ""
    entity: str | None = None
    samples: list[Sample] | None = None
    data: dict[str, Data] | None = None
