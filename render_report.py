"""The report of a run as one self-contained HTML page, and as Markdown for a model card.

  python render_report.py --run runs/tiny

Renders JSON and nothing else: report.json, and where they are there claims.json, no_replay.json, forgetting.json,
kmmlu.json, models.json and tuning.json beside it, and the summaries of the model, data and adapters that these name, with
their curves. A run of compare_models.py has no report.json: its page begins with models.json, or tuning.json. What was not
run is named on the page, with the command that runs it. The page holds its pictures and styles, loads nothing and runs nothing; the same JSON gives the same bytes.

Exit codes: 0 rendered, 1 bad input, 2 bad usage.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lab.cli import LabError, finish, sha256, write_atomically
from lab.stages import named

MAIN = "report.json"
FILES = ("claims.json", "no_replay.json", "forgetting.json", "kmmlu.json")
COMPARED = ("models.json", "tuning.json")  # of compare_models.py; no claim is judged on them


def parse_args(argv):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--run", type=Path, default=Path("runs/tiny"), metavar="DIR", help="the run's folder (%(default)s)")
    add("--html", type=Path, metavar="FILE", help="the page (report.html in --run)")
    add("--markdown", type=Path, metavar="FILE", help="the same as Markdown (report.md in --run)")
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Parts:
    """What the page is made of: {file name: content or None}, {stage: (folder, summary, rows)}, summaries by their path.

    `changed` names the files that are others than those that the claims were judged on; `others` are {part: [inputs that
    are others than the main file's]}, `since` {part of COMPARED: [inputs that are others now]}. `main` is the name of the
    file that the page begins with.
    """

    found: dict
    curves: dict
    before: dict
    changed: list
    others: dict
    since: dict
    main: str = MAIN

    @property
    def report(self):
        """The content of the main file."""
        return self.found[self.main]


def read(run):
    """The Parts of a run's folder. Raises LabError where it has no main file, or a file is malformed."""
    from lab import measured
    from lab.page import readable

    main = main_of(run)
    found = {name: reader(run / name) if (run / name).is_file() else None for name, reader in readers().items()}
    curves = {}
    for stage, folder in trained(found).items():
        if (folder / "summary.json").is_file():
            summary, rows = measured.read_curve(folder)
            curves[readable(stage)] = (folder, readable(summary), readable(rows))
    report = found[main]
    earlier = [Path(name) / "summary.json" for name in (model_of(report), *(report.get("data") or {}))]
    before = {path: readable(measured.read_summary(path)) for path in earlier if path.is_file()}
    others = {
        name: measured.unlike(content.get("inputs", {}), report) for name, content in found.items() if content
    }
    since = {name: others_now(found[name]) for name in COMPARED if found[name]}
    return Parts(readable(found), curves, before, changed(run, found), readable(others), readable(since), main)


def main_of(run):
    """The name of the file that a run's page begins with. Raises LabError where there is none."""
    for name in (MAIN, *COMPARED):
        if (run / name).is_file():
            return name
    raise LabError(
        f"{run / MAIN}: no such file; `make verify` writes it. Nor is there {' or '.join(COMPARED)}: `make gemma` and "
        "`make compare-tuning` write these"
    )


def readers():
    """{file: what reads and checks it}."""
    from lab import measured
    from lab.comparison import MAKES

    read_report = (measured.read_whole_report, measured.read_claims, measured.read_no_replay)
    plain = zip((MAIN, *FILES), (*read_report, measured.read_forgetting, measured.read_kmmlu), strict=True)
    compared = {name: partial(measured.read_comparison, remedy=f"`{MAKES[name]}` writes it") for name in COMPARED}
    return dict(plain) | compared


def trained(found):
    """{stage: folder} of all adapters that reports and comparisons name; one that several name has its first name."""
    folders = {}
    for name in ("no_replay.json", MAIN):
        folders |= adapters_of(found[name]) if found[name] else {}
    for name in COMPARED:
        for stage, folder in (adapters_of(found[name]) if found[name] else {}).items():
            if folder not in folders.values():
                folders[stage if stage not in folders else f"{stage} of {name}"] = folder
    return folders


def adapters_of(report):
    """{stage: folder} of the adapters that a report names in its flags, in their order."""
    items = report.get("flags", {}).get("adapter_path") or []
    found = map(named, [items] if isinstance(items, str) else items)
    return {name: folder for name, folder in found if folder}


def model_of(report):
    """The model's folder, as a report names it; "?" where it does not."""
    return report.get("flags", {}).get("model") or "?"


def changed(run, found):
    """The files that the claims were judged on and that are others now, and those that came since."""
    if not found["claims.json"]:
        return []
    known = {Path(name).name for name in found["claims.json"].get("inputs", {})}
    return others_now(found["claims.json"]) + [
        str(run / name) for name in FILES[1:] if found[name] and name not in known
    ]


def others_now(content):
    """The input files of `content` that are there, and are others than it was made from."""
    inputs = content.get("inputs", {}).items()
    return [name for name, digest in inputs if Path(name).is_file() and sha256(name) != digest]


def build(run, parts):
    """(title, lead, sections) of the report."""
    from lab import sections, side_sections
    from lab.comparison_sections import comparison

    found, report = parts.found, parts.report
    profile, company = report.get("profile") or "?", report.get("entity") or "the company"
    lead = f"What {model_of(report)} knew of {company} and of the world before and after training; shares of right answers with their 95 % intervals."
    made_of = dict(parts.before)
    made_of |= {folder / "summary.json": summary for folder, summary, _ in parts.curves.values()}
    made_of |= {run / name: content for name, content in found.items() if content}
    forgetting = side_sections.forgetting(found["forgetting.json"], found["no_replay.json"])
    claims = side_sections.claims(found["claims.json"], parts.changed)
    whole = (
        parts.main == MAIN
    )  # a run of the chain's own; one of compare_models.py has only what is there of these
    sides = [
        warned(forgetting, parts, FILES[1:3]),
        warned(side_sections.kmmlu(found["kmmlu.json"]), parts, FILES[3:]),
    ]
    compared = [warned(comparison(name, found[name]), parts, [name]) for name in COMPARED]
    shown = [
        *([sections.stages(report), sections.answers(report)] if whole else compared),
        sections.training(parts.curves),
        *(section for section in [*sides, claims] if whole or not section.missing),
        *(section for section in compared if whole and not section.missing),
        sections.data(report),
        sections.provenance(made_of),
    ]
    return f"{company}: report of profile {profile}", lead, shown


def warned(section, parts, names):
    """`section`, with a warning where a file of `names` was measured on other files than the main one, or than are there."""
    from lab.comparison import MAKES
    from lab.evidence import FILES as KINDS

    make = {kind.name: kind.make for kind in KINDS.values()} | MAKES
    told = [
        f"{name} was measured on another {', '.join(parts.others[name])} than {parts.main}: run `{make[name]}` again."
        for name in names
        if parts.others.get(name)
    ]
    told += [
        f"{name} was measured before {', '.join(parts.since[name])} changed: run `{make[name]}` again."
        for name in names
        if parts.since.get(name)
    ]
    return replace(section, warning=" ".join(filter(None, [section.warning, *told])))


def main(argv=None):
    args = parse_args(argv)
    from lab import page

    content = build(args.run, read(args.run))
    for path, render in (
        (args.html or args.run / "report.html", page.to_html),
        (args.markdown or args.run / "report.md", page.to_markdown),
    ):
        write_atomically(path, render(*content))
        print(f"report: {path}")
    if missing := [f"{section.id} (`{section.missing}`)" for section in content[2] if section.missing]:
        print(f"not run: {', '.join(missing)}")
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
