"""Claims as data (configs/claims.yaml): read, checked, and judged by what a run measured, each with its figures.

A claim HOLDS where the 95 % intervals leave no doubt, FAILS where they leave none the other way, is UNDECIDED where
they straddle the bound or what must be given does not hold, and NOT_MEASURED where a figure is missing, or is of
something else (a sample, other adapters): whoever signs a claim needs the first.
"""

from dataclasses import dataclass, field
from fractions import Fraction

from lab import bounds, differences
from lab.bounds import FAILS, HOLDS, UNDECIDED
from lab.cli import LabError
from lab.evidence import FILES, Evidence
from lab.report import cell
from lab.shapes import VERDICTS

NOT_MEASURED = VERDICTS[3]
TEXTS = ("id", "claim", "claim_ko", "seed")
KEYS = (*TEXTS, "given", "holds_if", "doubted", "no_probe")
CHANGES = {  # kind: (sign of the change that it limits, at most?, in words)
    "rises_at_least": (1, False, "a rise of at least"),
    "rises_at_most": (1, True, "a rise of at most"),
    "falls_at_least": (-1, True, "a fall of at least"),
    "falls_at_most": (-1, False, "a fall of at most"),
}
MOST = 1e15  # of a plain number
OF_A_STAGE = (*bounds.KINDS, "above_chance")


@dataclass(frozen=True)
class Condition:
    """One bound on one figure: of a `stage`, of the change `between` two, or on a plain number (`figure`)."""

    file: str
    metric: str
    kind: str
    value: Fraction
    stage: str = ""
    between: tuple = ()

    def stages(self):
        """The names of the stages that it is about."""
        return self.between or ((self.stage,) if self.stage else ())


@dataclass(frozen=True)
class Claim:
    """A sentence with what decides it; `doubted` is {profile: why it is expected not to hold there}."""

    texts: dict
    given: tuple = ()
    holds_if: tuple = ()
    doubted: dict = field(default_factory=dict)
    no_probe: str = ""


def read_claims(path):
    """The Claims of a YAML file. Raises LabError, with file and claim, for whatever could not be judged."""
    from lab.general import read_yaml

    content = read_yaml(path)
    found = [_claim(f"{path}: claim {number}", item) for number, item in enumerate(content, 1)]
    names = [claim.texts["id"] for claim in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise LabError(f"{path}: claim {twice[0]}: stands twice; give one another id")
    if not found:
        raise LabError(f"{path}: holds no claim; see configs/claims.yaml")
    return found


def _claim(where, item):
    if not isinstance(item, dict):
        raise LabError(f"{where}: expected `id: ...` lines, found {item!r}; see configs/claims.yaml")
    if isinstance(item.get("id"), str):
        where = f"{where.rpartition(' ')[0]} {item['id']}"
    for key in TEXTS:
        if not isinstance(item.get(key), str) or not item[key].strip():
            raise LabError(f"{where}: no text under {key!r}; write it")
    if unknown := [key for key in item if key not in KEYS]:
        raise LabError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(KEYS)}")
    if ("holds_if" in item) == ("no_probe" in item):
        raise LabError(f"{where}: needs `holds_if:` conditions, or `no_probe:` and why there are none")
    given, holds_if = (
        _conditions(f"{where}: {key}", item[key]) if key in item else () for key in ("given", "holds_if")
    )
    doubted, silent = item.get("doubted", {}), item.get("no_probe", "")
    if not isinstance(doubted, dict) or not all(isinstance(why, str) for why in (*doubted.values(), silent)):
        raise LabError(f"{where}: `doubted:` is `profile: why` lines, `no_probe:` a text")
    return Claim({key: item[key] for key in TEXTS}, given, holds_if, doubted, silent)


def _conditions(where, items):
    if not isinstance(items, list) or not items:
        raise LabError(f"{where}: expected a list of conditions, found {items!r}; see configs/claims.yaml")
    return tuple(_condition(f"{where} {number}", item) for number, item in enumerate(items, 1))


def _condition(where, item):
    item = dict(item) if isinstance(item, dict) else {}
    file = item.pop("file", None)
    if not isinstance(file, str) or file not in FILES:
        raise LabError(f"{where}: file {file!r} is none of {', '.join(FILES)}")
    if FILES[file].plain:
        return _bounded(where, item, ("figure",), ("at_least", "at_most"), file)
    if "from" in item or "to" in item:
        return _bounded(where, item, ("from", "to", "metric"), CHANGES, file)
    return _bounded(where, item, ("stage", "metric"), OF_A_STAGE, file)


def _bounded(where, item, names, kinds, file):
    kind = next((key for key in item if key not in names), None)
    if set(item) != {*names, kind} or kind not in kinds:
        raise LabError(
            f"{where}: needs {', '.join(names)} and one bound out of {', '.join(kinds)}; it has {', '.join(item)}"
        )
    metric, value = item[names[-1]], item[kind]
    stages = tuple(item[name] for name in names[:-1])
    for stage in stages:
        FILES[file].check_stage(where, stage)
    FILES[file].check_metric(where, metric)
    if kind in CHANGES:
        FILES[file].check_change(where, metric)
    plain = FILES[file].plain
    if type(value) not in (int, float) or not 0 <= value <= (MOST if plain else 1):
        raise LabError(f"{where}: {kind}: {value!r} is no {'number' if plain else 'share from 0 to 1'}")
    between = stages if len(stages) == 2 else ()
    return Condition(file, metric, kind, Fraction(str(value)), "" if between else "".join(stages), between)


def judge(claim, evidence, profile):
    """What becomes of a claim, as claims.json holds it: its texts, verdict, figures, and what is still to be run."""
    figures = [_figure(condition, evidence) for condition in claim.holds_if]
    before = [_figure(condition, evidence) for condition in claim.given]
    verdicts = [figure["verdict"] for figure in figures]
    if claim.no_probe:
        verdict = NOT_MEASURED
    elif any(figure["verdict"] != HOLDS for figure in before):
        missing = NOT_MEASURED in [figure["verdict"] for figure in before]
        verdict = NOT_MEASURED if missing else UNDECIDED
    else:
        verdict = next((one for one in (FAILS, NOT_MEASURED, UNDECIDED) if one in verdicts), HOLDS)
    result = {
        **claim.texts,
        "verdict": verdict,
        "doubted": claim.doubted.get(profile),
        "note": claim.no_probe or None,
    }
    figures = [figure | {"given": True} for figure in before] + figures
    lacking = dict.fromkeys(figure.pop("make") for figure in figures)
    return {**result, "figures": figures, "make": [target for target in lacking if target]}


def _figure(condition, evidence):
    """{"text", "verdict", "make"} of a condition; "make" is the target that measures it where it is not measured."""
    found = evidence[condition.file]
    make = FILES[condition.file].make
    if found is None:
        return {
            "text": f"{_name(condition)}: no {FILES[condition.file].name}",
            "verdict": NOT_MEASURED,
            "make": make,
        }
    verdict, text = _weigh(condition, found)
    if why := found.why_not(condition.metric):
        return {"text": f"{text}; {why}", "verdict": NOT_MEASURED, "make": make}
    return {"text": text, "verdict": verdict or NOT_MEASURED, "make": None if verdict else make}


def _weigh(condition, found: Evidence):
    """(verdict or None where it was not measured, line for people) of a condition on the evidence of its file."""
    limit = float(condition.value)
    if condition.kind in CHANGES:
        return _weigh_change(condition, found)
    if not condition.stage:
        value, at_most = found.figures.get(condition.metric), condition.kind == "at_most"
        if type(value) not in (int, float):
            return None, f"{_name(condition)} was not written"
        shown = f"{value:g}, {bounds.KINDS[condition.kind]} {limit:g}"
        return bounds.decide(value, value, limit, at_most), f"{_name(condition)} {shown}"
    if condition.kind == "above_chance":
        value = found.stages.get(condition.stage, {}).get(condition.metric)
        if not value or not value["n"]:
            return None, f"{_name(condition)} was not measured"
        edge = found.chance + limit
        verdict = HOLDS if value["low"] > edge else FAILS if value["high"] <= edge else UNDECIDED
        return verdict, f"{_name(condition)} {cell(value)}, above chance ({100 * edge:g} %)"
    bound = bounds.Bound(condition.stage, condition.metric, condition.kind, condition.value)
    return bounds.decided(bound, found.stages)


def _weigh_change(condition, found):
    pair = differences.find(found.paired.get(condition.metric, ()), *condition.between)
    if not pair or not pair["n"]:
        return None, f"{_name(condition)} was not measured on the same probes"
    sign, at_most, words = CHANGES[condition.kind]
    limit = float(condition.value)
    verdict = bounds.decide(pair["low"], pair["high"], sign * limit, at_most)
    return verdict, f"{_name(condition)} {differences.points(pair)} points, {words} {100 * limit:g}"


def _name(condition):
    return " ".join((" -> ".join(condition.stages()) or condition.file, condition.metric))
