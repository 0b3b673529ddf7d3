"""What other commands measured, read back from their JSON and checked before the report page or a claim uses it."""

from lab import differences
from lab.cli import LabError, read_json
from lab.records import read_jsonl
from lab.report import METRICS, check_counted

KMMLU, FORGETTING, NO_REPLAY = (
    "`make kmmlu` writes it",
    "`make forgetting` writes it",
    "`make no-replay` writes it",
)
CONVERSION, TRAINING, CLAIMS = "`make convert` writes it", "train the adapter again", "`make claims` writes it"
REPLAYS = ("none", "authored", "self")
NUMBERS = ("iterations", "best_iteration", "best_valid_loss", "best_recall", "max_forgetting")  # of a training run
LOSSES = ("train_loss", "valid_loss", "guard_loss", "recall")


def read_kmmlu(path):
    """The content of kmmlu.json. Raises LabError, with the file and the place in it, where it is missing or malformed."""
    content = _object(path, KMMLU, {"task": str, "source": str, "chance": float, "stages": dict})
    if not 0 <= content["chance"] <= 1 or not content["stages"]:
        raise LabError(f'{path}: "chance" must be a share from 0 to 1 and "stages" hold a stage; {KMMLU}')
    for stage, found in content["stages"].items():
        where = f"{path}: stage {stage}"
        if not isinstance(found, dict) or "micro" not in found:
            raise LabError(f'{where}: no "micro"; {KMMLU}')
        check_counted(f"{where}: micro", found["micro"], KMMLU)
        for part in ("subjects", "groups"):
            for name, value in _dict(f"{where}: {part}", found.get(part, {}), KMMLU).items():
                check_counted(f"{where}: {part}: {name}", value, KMMLU)
        for part in ("letters", "answers"):
            counts = _dict(f"{where}: {part}", found.get(part, {}), KMMLU)
            if not all(type(count) is int and count >= 0 for count in counts.values()):
                raise LabError(f"{where}: {part}: expected whole numbers; {KMMLU}")
    differences.check_pairs(f"{path}: paired", content.get("paired", []), KMMLU)
    return content


def read_forgetting(path):
    """The content of forgetting.json. Raises LabError, with the file and the place in it, where it is malformed."""
    content = _object(path, FORGETTING, {"points": list, "base": dict, "default": str})
    for number, point in enumerate(content["points"]):
        where = f"{path}: point {number}"
        if not isinstance(point, dict) or not isinstance(point.get("name"), str):
            raise LabError(f'{where}: no "name"; {FORGETTING}')
        where = f"{path}: point {point['name']}"
        if point.get("replay") not in REPLAYS:
            raise LabError(
                f"{where}: replay {point.get('replay')!r} is none of {', '.join(REPLAYS)}; {FORGETTING}"
            )
        if type(point.get("ratio")) not in (int, float) or not 0 <= point["ratio"] <= 1:
            raise LabError(f'{where}: "ratio" must be a share from 0 to 1; {FORGETTING}')
        _check_metrics(where, point.get("metrics"))
    _check_metrics(f"{path}: base", content["base"])
    names = [point["name"] for point in content["points"]]
    if not names or content["default"] not in names or len(set(names)) < len(names):
        known = ", ".join(names) or "none"
        raise LabError(
            f'{path}: "default" {content["default"]!r} must be one of the points, all of other names ({known})'
        )
    return content


def _check_metrics(where, metrics):
    for metric, value in _dict(where, metrics, FORGETTING).items():
        if metric not in METRICS:
            raise LabError(f"{where}: unknown metric {metric!r}; known: {', '.join(METRICS)}")
        check_counted(f"{where}: {metric}", value, FORGETTING)


def read_curve(folder):
    """(summary, rows of the curve) of an adapter's folder. Raises LabError, with file and line, for what is malformed."""
    summary = _object(folder / "summary.json", TRAINING, {"flags": dict})
    for name, value in {**summary, **summary["flags"]}.items():
        if name in NUMBERS and value is not None and type(value) not in (int, float):
            raise LabError(f"{folder / 'summary.json'}: {name} is {value!r}, not a number; {TRAINING}")
    path = folder / "curve.jsonl"
    rows = read_jsonl(path)
    for number, row in rows:
        if type(row.get("iteration")) is not int:
            raise LabError(f'{path}:{number}: no "iteration"; {TRAINING}')
        for name in LOSSES:
            if name in row and type(row[name]) not in (int, float):
                raise LabError(f"{path}:{number}: {name} is {row[name]!r}, not a number; {TRAINING}")
    return summary, [row for _, row in rows]


def read_claims(path):
    """The content of claims.json. Raises LabError, with the file, where it is missing or malformed."""
    content = _object(path, CLAIMS, {"claims": list, "counts": dict})
    for claim in content["claims"]:
        texts = [claim.get(key) for key in ("id", "claim", "verdict")] if isinstance(claim, dict) else [None]
        if not all(isinstance(text, str) for text in texts) or not isinstance(claim.get("figures"), list):
            raise LabError(f'{path}: a claim without "id", "claim", "verdict" or "figures"; {CLAIMS}')
    return content


def read_conversion(path):
    """The summary of a converted model. Raises LabError, with the file, where it is missing or malformed."""
    return _object(path, CONVERSION, {"flags": dict})


def _object(path, remedy, wanted):
    """The JSON object in a file, with the keys `wanted`, {key: type}."""
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        raise LabError(f"{path}: holds no JSON object; {remedy}")
    for key, kind in wanted.items():
        kinds = (int, float) if kind is float else (kind,)
        if type(content.get(key)) not in kinds:
            raise LabError(f'{path}: no "{key}", or not of the right kind; {remedy}')
    return content


def _dict(where, value, remedy):
    if not isinstance(value, dict):
        raise LabError(f"{where}: expected an object, found {value!r}; {remedy}")
    return value
