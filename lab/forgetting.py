"""The forgetting experiment: SFT at several shares of general rows, what each point keeps, and which share the figures favour.

A point is {"name", "replay": "authored" | "self" | "none", "ratio": share of general rows among its training rows,
"rows": {"company", "general"}, "data_sha256": of its train.jsonl, "metrics": {metric: counted}}. Dialogues of several turns
and the company's sentences count as company rows.
"""

from pathlib import Path

from lab.cli import LabError, afresh, read_json, sha256
from lab.report import FEWER_IS_BETTER, METRICS, cell
from lab.stats import paired

DECIDING = ("general", "glasses", "recall", "recall_paraphrase")  # a share is good enough if it is in all of these
DOUBT = 0.05  # p-value from which two points are not told apart
REMEDY = "`make forgetting` writes it"


def point(name, adapter, metrics):
    """The point of an adapter's folder: its rows by the summary of the data that it was trained on.

    Raises LabError where that data is not there any more, or has been made anew with other rows.
    """
    trained = read_json(adapter / "summary.json", "train the adapter with train_with_early_stopping.py")
    data = trained.get("flags", {}).get("data", "")
    made = read_json(Path(data) / "summary.json", f"make the data that {adapter} was trained on again")
    file = Path(data) / "train.jsonl"
    if not file.is_file() or sha256(file) != trained.get("inputs", {}).get(str(file)):
        raise LabError(f"{file}: not the rows that {adapter} was trained on; train it again, or make them again")
    if not all(isinstance(made.get(key), int) for key in ("train", "replay")) or made["train"] < 1:
        raise LabError(
            f"{data}/summary.json: no counts of general rows, so {adapter} is no point; name adapters that were trained on data "
            "of prepare_solverx_sft_data.py"
        )
    general, rows = made["replay"], made["train"]
    return {
        "name": name,
        "replay": made.get("replay_source", "authored") if general else "none",
        "ratio": round(general / rows, 4),
        "rows": {"company": rows - general, "general": general},
        "data_sha256": sha256(file),
        "metrics": metrics,
    }


def outcomes(answers, metric):
    """[bool] of one stage's answer rows for `metric`, True where the answer is good."""
    if metric == "glasses":
        return [not row["speaks_of_company"] for row in answers if "speaks_of_company" in row]
    return [row["right"] for row in answers if row["metric"] == metric]


def comparisons(points, answers):
    """{metric: [{"first", "second", ...paired}]} of every DECIDING metric: `first` the point that is best there.

    `answers` is {point: answer rows}; for glasses a good answer is one that does not speak of the company.
    """
    found = {}
    for metric in DECIDING:
        good = {item["name"]: outcomes(answers[item["name"]], metric) for item in points}
        if not any(good.values()):
            continue
        best = max(good, key=lambda name: sum(good[name]))
        others = [name for name in good if name != best]
        found[metric] = [{"first": best, "second": name, **paired(good[best], good[name])} for name in others]
    return found


def worse(name, compared):
    """The metrics in which the point `name` is worse than the best point, told apart at DOUBT."""
    return [
        metric
        for metric, pairs in compared.items()
        if any(pair["second"] == name and pair["difference"] < 0 and pair["p"] < DOUBT for pair in pairs)
    ]


def favoured(points, compared):
    """The point with the smallest share of general rows that is worse in no metric, out of those without self-generated
    rows; None where every one is worse in some."""
    authored = sorted((item for item in points if item["replay"] != "self"), key=lambda item: item["ratio"])
    return next((item for item in authored if not worse(item["name"], compared)), None)


def verdict(points, compared, default):
    """What the figures favour, in words made of them; `default` is the name of the default's point."""
    chosen = favoured(points, compared)
    named = {item["name"]: item for item in points}
    against = [f"{name} loses {' and '.join(lost)}" for name in named if (lost := worse(name, compared))]
    if chosen is None:
        said = (
            f"No share is as good as the best in every metric (paired test, p < {DOUBT:g}): {'; '.join(against)}."
        )
        return " ".join([said, *same_rows(points)])
    said = f"The smallest share that is told apart from the best in no metric (paired test, p < {DOUBT:g}) is {_share(chosen)}"
    said += ", the default" if chosen["name"] == default else f"; the default is {_share(named[default])}"
    return " ".join([f"{said}; {'; '.join(against)}." if against else f"{said}.", *same_rows(points)])


def same_rows(points):
    """[a sentence for each set of points that were trained on the same rows]: their difference says nothing of the rows.

    The embedded base, say, knows the general answers by heart: what it generates is what was authored.
    """
    names = {}
    for item in points:
        names.setdefault(item.get("data_sha256") or item["name"], []).append(item["name"])
    return [
        f"{' and '.join(alike)} were trained on the same rows, byte for byte: what sets them apart is not the rows."
        for alike in names.values()
        if len(alike) > 1
    ]


def _share(item):
    return f"{item['ratio']:.0%} general rows ({item['name']}, {cell(item['metrics'].get('general'))} general)"


def table(report):
    """The report as lines of cells: a header, then a row for each metric, base and points from few to many general rows."""
    points = sorted(report["points"], key=lambda item: (item["replay"] == "self", item["ratio"]))
    columns = [("base", report["base"]), *((item["name"], item["metrics"]) for item in points)]
    measured = [metric for metric in METRICS if any(metric in values for _, values in columns)]
    fewer = {metric: " (fewer is better)" for metric in FEWER_IS_BETTER}
    lines = [
        [metric + fewer.get(metric, ""), *(cell(values.get(metric)) for _, values in columns)]
        for metric in measured
    ]
    counts = [
        "general rows",
        "-",
        *(f"{item['rows']['general']} of {sum(item['rows'].values())}" for item in points),
    ]
    return [["metric", *(name for name, _ in columns)], counts, *lines]


def read(path):
    """The report of a file. Raises LabError where it is none."""
    report = read_json(path, REMEDY)
    if not isinstance(report, dict) or not {"points", "base", "verdict", "default"} <= report.keys():
        raise LabError(f"{path}: not a report of the forgetting experiment; {afresh(REMEDY)}")
    return report
