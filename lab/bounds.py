"""Bounds that a report's figures must keep: read from YAML, judged on the counts themselves.

sft:
  recall: {at_least: 0.95}
  glasses: {at_most: 0.02}
  general: {of_base: 0.9}     # at least nine tenths of what the base has
"""

from dataclasses import dataclass
from fractions import Fraction

from lab.cli import CheckFailed, LabError
from lab.report import METRICS, cell
from lab.stats import less_scaled

BASE = "base"
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
KINDS = {"at_least": "at least", "at_most": "at most", "of_base": "at least"}


@dataclass(frozen=True)
class Bound:
    """One bound: `kind` is a key of KINDS, `value` a share from 0 to 1."""

    stage: str
    metric: str
    kind: str
    value: Fraction


def read_bounds(path, stages):
    """The Bounds of a YAML file. Raises LabError, with the file, for whatever is not a bound on one of `stages`."""
    from lab.general import load_yaml

    found = []
    for stage, metrics in _entries(path, "", load_yaml(path), stages, "stage"):
        for metric, bounds in _entries(path, f"{stage}: ", metrics, METRICS, "metric"):
            for kind, value in _entries(path, f"{stage}: {metric}: ", bounds, KINDS, "bound"):
                if type(value) not in (int, float) or not 0 <= value <= 1:
                    raise LabError(f"{path}: {stage}: {metric}: {kind}: {value!r} is no share from 0 to 1")
                if kind == "of_base" and BASE not in stages:
                    raise LabError(f"{path}: {stage}: {metric}: of_base needs stage {BASE}, which is not measured")
                found.append(Bound(stage, metric, kind, Fraction(str(value))))
    return found


def check(path, limits, report):
    """Print each bound out of `limits`, those of the file `path`. Raises CheckFailed where one does not hold."""
    verdicts = [verdict(bound, report["stages"]) for bound in limits]
    for line, _ in verdicts:
        print(line)
    if failed := sum(not holds for _, holds in verdicts):
        raise CheckFailed(f"{path}: {failed} of {len(verdicts)} bounds do not hold; they are marked above")


def _entries(path, where, content, known, what):
    if not isinstance(content, dict) or not content:
        raise LabError(
            f"{path}: {where}expected `{what}: ...` lines, found {content!r}; see configs/tiny/bounds.yaml"
        )
    if unknown := [key for key in content if key not in known]:
        raise LabError(f"{path}: {where}unknown {what} {unknown[0]!r}; known: {', '.join(known)}")
    return content.items()


def verdict(bound, stages):
    """(line for people, whether `bound` holds) on a report's stages; what was not measured does not hold."""
    name = f"{bound.stage} {bound.metric}"
    share, base = (_share(stages[stage].get(bound.metric)) for stage in (bound.stage, _other(bound)))
    if share is None or base is None:
        return f"does not hold: {name} was not measured", False
    limit = bound.value * base if bound.kind == "of_base" else bound.value
    holds = share <= limit if bound.kind == "at_most" else share >= limit
    origin = f" ({float(bound.value):g} of the base's {_percent(base)})" if bound.kind == "of_base" else ""
    line = f"{name} {_percent(share)}, {KINDS[bound.kind]} {_percent(limit)}{origin}"
    return f"{'holds' if holds else 'does not hold'}: {line}", holds


def decide(low, high, limit, at_most=False):
    """What an interval says of being at least (or at most) `limit`: HOLDS or FAILS where all of it does, else UNDECIDED."""
    if at_most:
        low, high, limit = -high, -low, -limit
    if low >= limit:
        return HOLDS
    return FAILS if high < limit else UNDECIDED


def decided(bound, stages):
    """(HOLDS, FAILS or UNDECIDED, line for people) of `bound` by the 95 % interval; (None, line) where not measured.

    A share of the base's is judged by the interval of the difference, as if the two were independent: a wide one.
    """
    value, base = (stages.get(stage, {}).get(bound.metric) for stage in (bound.stage, _other(bound)))
    share, of = _share(value), _share(base)
    if share is None or of is None:
        return None, f"{bound.stage} {bound.metric} was not measured"
    low, high, limit = value["low"], value["high"], float(bound.value)
    shown = _percent(bound.value)
    if bound.kind == "of_base":
        low, high = less_scaled(value, base, limit)
        limit, shown = 0.0, f"{_percent(bound.value * of)} ({float(bound.value):g} of the base's {_percent(of)})"
    found = decide(low, high, limit, bound.kind == "at_most")
    return found, f"{bound.stage} {bound.metric} {cell(value)}, {KINDS[bound.kind]} {shown}"


def _other(bound):
    return BASE if bound.kind == "of_base" else bound.stage


def _share(value):
    return Fraction(value["correct"], value["n"]) if value and value["n"] else None


def _percent(share):
    return f"{100 * float(share):.1f} %"
