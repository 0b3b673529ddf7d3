"""What other commands measured, read back from their JSON and checked before the report page or a claim uses it."""

from pydantic import ValidationError

from lab import comparison_shapes, shapes
from lab.cli import LabError, afresh, read_json
from lab.records import read_jsonl
from lab.report import read_report

WRITES = "`make {}` writes it"
TRAINING = "train the adapter again"


def checked(where, content, model, remedy):
    """`content`, where it is as `model` says. Raises LabError that names the first place in it that is not."""
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "[key]") or "all of it"
        more = f" (and {error.error_count() - 1} more faults)" if error.error_count() > 1 else ""
        raise LabError(f"{where}: {place}: {' '.join(first['msg'].split())}{more}; {remedy}") from error
    return content


def read_whole_report(path):
    """A report.json with all that the page shows of it. Raises LabError, as all of these do, for one malformed."""
    return _read_report(path, WRITES.format("verify"))


def read_no_replay(path):
    """The content of no_replay.json."""
    return _read_report(path, WRITES.format("no-replay"))


def read_comparison(path, remedy):
    """The content of a file of compare_models.py, models.json or tuning.json; `remedy` says what writes it."""
    return checked(path, read_report(path, remedy), comparison_shapes.Comparison, afresh(remedy))


def read_kmmlu(path):
    """The content of kmmlu.json."""
    return _read(path, shapes.Kmmlu, WRITES.format("kmmlu"))


def read_forgetting(path):
    """The content of forgetting.json."""
    return _read(path, shapes.Forgetting, WRITES.format("forgetting"))


def read_claims(path):
    """The content of claims.json."""
    return _read(path, shapes.Claims, WRITES.format("claims"))


def read_summary(path):
    """The summary.json of a converted model or a data folder."""
    return _read(path, shapes.Summary, "make it again")


def read_curve(folder):
    """(summary, rows of the curve) of an adapter's folder."""
    summary, path = _read(folder / "summary.json", shapes.Training, TRAINING), folder / "curve.jsonl"
    return summary, [
        checked(f"{path}:{number}", row, shapes.CurvePoint, TRAINING) for number, row in read_jsonl(path)
    ]


def unlike(inputs, report):
    """The names in `inputs`, {file: sha256}, of files that were others when `report` was measured."""
    known = report.get("inputs", {})
    return sorted(name for name, digest in inputs.items() if known.get(name, digest) != digest)


def _read_report(path, remedy):
    return checked(path, read_report(path, remedy), shapes.Report, afresh(remedy))


def _read(path, model, remedy):
    return checked(path, read_json(path, remedy), model, afresh(remedy))
