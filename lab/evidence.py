"""The files that decide claims, each with the stages and metrics it can hold, read into one shape."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from lab import measured
from lab.cli import LabError, sha256
from lab.kmmlu import KMMLU
from lab.kmmlu_data import listing
from lab.report import METRICS
from lab.shapes import REPLAYS

STAGES = ("base", "cpt", "sft")
SAMPLE = "only a sample made by the lab, not KMMLU; KMMLU_DATA= takes KMMLU from the hub"


@dataclass(frozen=True)
class Evidence:
    """What one file says: {stage: {metric: counted}}, {metric: [pair]}, {name: number}, the share that guessing gets.

    `unfit` is {metric, or "" for all: why its figures decide no claim}.
    """

    stages: dict = field(default_factory=dict)
    paired: dict = field(default_factory=dict)
    figures: dict = field(default_factory=dict)
    chance: float = 0.0
    unfit: dict = field(default_factory=dict)

    def why_not(self, metric):
        """Why the figures of `metric` decide no claim, in words; "" where they may."""
        return self.unfit.get("") or self.unfit.get(metric, "")


@dataclass(frozen=True)
class File:
    """A kind of file: its name, the make target that writes it, the stages and metrics that claims may name.

    `paired` are the metrics of which it holds differences of stages on the same probes.
    """

    name: str
    make: str
    stages: tuple = ()
    metrics: tuple = tuple(METRICS)
    paired: tuple = tuple(METRICS)
    plain: bool = False  # numbers without intervals

    def check_stage(self, where, stage):
        """Raise LabError at `where` for a stage that this file never holds."""
        if stage not in self.stages:
            raise LabError(f"{where}: unknown stage {stage!r}; known in {self.name}: {', '.join(self.stages)}")

    def check_metric(self, where, metric):
        """Raise LabError at `where` for a metric that this file never holds; "subjects/" allows all that begin so."""
        names = [name for name in self.metrics if not name.endswith("/")]
        beginnings = tuple(name for name in self.metrics if name.endswith("/"))
        text = metric if isinstance(metric, str) else ""
        if text not in names and not (text.startswith(beginnings) and not text.endswith("/")):
            raise LabError(f"{where}: unknown metric {metric!r}; known in {self.name}: {', '.join(self.metrics)}")

    def check_change(self, where, metric):
        """Raise LabError at `where` for a metric of which this file never holds the change between two stages."""
        if metric not in self.paired:
            known = ", ".join(self.paired) or "nothing"
            raise LabError(
                f"{where}: no change of {metric!r} stands in {self.name}, only of {known}; bound a stage instead"
            )


FILES = {
    "report": File("report.json", "make verify", STAGES),
    "no_replay": File("no_replay.json", "make no-replay", (*STAGES, "no-replay")),
    "forgetting": File("forgetting.json", "make forgetting", ("base", "default", *REPLAYS), paired=()),
    "kmmlu": File("kmmlu.json", "make kmmlu", STAGES, ("micro", "subjects/", "groups/"), ("micro",)),
    "conversion": File(
        "summary.json", "make convert", (), ("tensors_checked", "bits_per_weight", "parameters"), (), True
    ),
}


def gather(folder):
    """({name of FILES: Evidence or None}, [paths read], profile) of a run's folder.

    report.json must be there; the others are None where their part was not run. What was measured on other files than
    report.json (adapters trained again since) is unfit.
    """
    folder = Path(folder)
    report = measured.read_whole_report(folder / FILES["report"].name)
    model = (report.get("flags") or {}).get("model")
    paths = {name: folder / file.name for name, file in FILES.items()}
    paths["conversion"] = Path(model) / FILES["conversion"].name if isinstance(model, str) else None
    readers = {
        "report": measured.read_whole_report,
        "no_replay": measured.read_no_replay,
        "forgetting": measured.read_forgetting,
    }
    readers |= {"kmmlu": measured.read_kmmlu, "conversion": measured.read_summary}
    there = {name: path for name, path in paths.items() if path and path.is_file()}
    contents = {name: readers[name](path) for name, path in there.items()}
    evidence = dict.fromkeys(FILES)
    for name, content in contents.items():
        evidence[name] = SHAPES[name](content)
        used = {str(there[name]): sha256(there[name])} if FILES[name].plain else content.get("inputs", {})
        if others := measured.unlike(used, report):
            words = f"measured on another {', '.join(others)} than report.json"
            evidence[name] = replace(evidence[name], unfit={"": words})
    return evidence, list(there.values()), report.get("profile", "")


def _of_report(content):
    return Evidence(content["stages"], content.get("paired", {}))


def _of_forgetting(content):
    """The base, the default's point, and of each kind of replay the point whose ratio is nearest to the default's."""
    points = content["points"]
    default = next(point for point in points if point["name"] == content["default"])
    stages = {"base": content["base"], "default": default["metrics"]}
    for replay in REPLAYS:
        if own := [point for point in points if point["replay"] == replay]:
            stages[replay] = min(own, key=lambda point: abs(point["ratio"] - default["ratio"]))["metrics"]
    return Evidence(stages)


def _of_kmmlu(content):
    stages = {}
    for stage, found in content["stages"].items():
        parts = {
            f"{part}/{name}": value
            for part in ("subjects", "groups")
            for name, value in found.get(part, {}).items()
        }
        stages[stage] = {"micro": found["micro"], **parts}
    return Evidence(stages, {"micro": content.get("paired", [])}, {}, content["chance"], _unfit_for_kmmlu(content))


def _unfit_for_kmmlu(content):
    """{metric, or "" for all: why it is no figure of KMMLU}."""
    if content.get("sample"):
        return {"": SAMPLE}
    if content["task"] != KMMLU.name:
        return {"": f"of {content['task']}, not KMMLU"}
    if limit := content.get("flags", {}).get("limit"):
        return {"": f"of the first {limit} items of each subject only"}
    asked, every = len(next(iter(content["stages"].values())).get("subjects", ())), len(listing().subjects)
    return {"micro": f"of {asked} subjects only, KMMLU has {every}"} if asked < every else {}


def _of_conversion(content):
    return Evidence(figures=content)


SHAPES = {
    "report": _of_report,
    "no_replay": _of_report,
    "forgetting": _of_forgetting,
    "kmmlu": _of_kmmlu,
    "conversion": _of_conversion,
}
