"""Differences of stages on the same probes, as reports hold them: {metric: [{"first", "second", **lab.stats.paired}]}."""

from lab.cli import LabError

LEGEND = "differences in points: second stage less first, same probes [95 %]; * where the interval leaves out 0"
MANY = 1000  # probes, from which on an interval is told to a tenth of a point
COUNTS, SHARES = ("n", "only_first", "only_second"), ("difference", "low", "high", "p")


def check(path, content, metrics, remedy):
    """Raise LabError, with file and metric, for content that is not {metric: [pair]} with metrics out of `metrics`."""
    if not isinstance(content, dict):
        raise LabError(f'{path}: "paired" holds {content!r}, not metrics; {remedy}')
    for metric, pairs in content.items():
        if metric not in metrics:
            raise LabError(f"{path}: paired: unknown metric {metric!r}; known: {', '.join(metrics)}")
        check_pairs(f"{path}: paired: {metric}", pairs, remedy)


def check_pairs(where, pairs, remedy):
    """Raise LabError at `where` for what is not a list of pairs."""
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise LabError(f"{where}: expected a list of comparisons; {remedy}")
    for pair in pairs:
        names = (pair.get("first"), pair.get("second"))
        counts, shares = ([pair.get(key) for key in keys] for keys in (COUNTS, SHARES))
        whole = all(type(count) is int and count >= 0 for count in counts)
        if not all(isinstance(name, str) for name in names) or not whole or counts[0] < counts[1] + counts[2]:
            raise LabError(
                f'{where}: "first", "second" and whole numbers {", ".join(COUNTS)} are needed; {remedy}'
            )
        if not all(type(share) in (int, float) and -1 <= share <= 1 for share in shares):
            raise LabError(f"{where}: {', '.join(SHARES)} must be shares from -1 to 1; {remedy}")


def find(pairs, first, second):
    """The comparison of `first` with `second` in a list of pairs, turned round where it stands so; None without one."""
    for pair in pairs:
        if (pair["first"], pair["second"]) == (first, second):
            return pair
        if (pair["first"], pair["second"]) == (second, first):
            return _turned(pair)
    return None


def _turned(pair):
    swapped = {"first": pair["second"], "second": pair["first"]}
    swapped |= {"only_first": pair["only_second"], "only_second": pair["only_first"]}
    return pair | swapped | {"difference": -pair["difference"], "low": -pair["high"], "high": -pair["low"]}


def cell(pair):
    """A comparison in words: "+38.2 [30 to 46] *", in points; "-" where there is none."""
    if not pair or not pair["n"]:
        return "-"
    star = " *" if pair["low"] > 0 or pair["high"] < 0 else ""
    return points(pair) + star


def points(pair):
    """A difference and its interval in points, as "+38.2 [30 to 46]"."""
    difference, low, high = (100 * pair[key] for key in ("difference", "low", "high"))
    digits = 1 if pair["n"] >= MANY else 0
    difference = round(difference, 1) + 0.0  # no "-0"
    low, high = (round(bound, digits) + 0.0 for bound in (low, high))
    return f"{difference:+.1f} [{low:.{digits}f} to {high:.{digits}f}]"


def chance(pair):
    """The comparison's McNemar p-value in words."""
    return "p < 0.001" if pair["p"] < 0.001 else f"p = {pair['p']:.3f}"


def names(paired):
    """The pairs of stages that `paired` compares, in the order in which they come."""
    return list(dict.fromkeys((pair["first"], pair["second"]) for pairs in paired.values() for pair in pairs))


def rows(paired, label=str):
    """The table as lists of strings: a header of pairs, then a row for each metric."""
    columns = names(paired)
    head = ["difference", *(f"{first} -> {second}" for first, second in columns)]
    return [
        head,
        *(
            [label(metric), *(cell(find(pairs, *column)) for column in columns)]
            for metric, pairs in paired.items()
        ),
    ]
