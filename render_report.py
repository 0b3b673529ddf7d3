"""The report of a run as one self-contained HTML page, and as Markdown for a model card.

  python render_report.py --run runs/tiny

Renders JSON and nothing else: report.json, and where they are there claims.json, no_replay.json, forgetting.json and
kmmlu.json beside it, and the curves of the adapters that the report names. What was not run is named on the page, with the
command that runs it. The page holds its pictures and styles, loads nothing and runs nothing; the same JSON gives the same bytes.

Exit codes: 0 rendered, 1 bad input, 2 bad usage.
"""

import argparse
import sys
from pathlib import Path

from lab.cli import finish, write_atomically

FILES = ("claims.json", "no_replay.json", "forgetting.json", "kmmlu.json")


def parse_args(argv):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--run", type=Path, default=Path("runs/tiny"), metavar="DIR", help="folder with report.json (%(default)s)")
    add("--html", type=Path, metavar="FILE", help="the page (report.html in --run)")
    add("--markdown", type=Path, metavar="FILE", help="the same as Markdown (report.md in --run)")
    return parser.parse_args(argv)


def read(run):
    """{name: content} of the JSON files of a run, None for those that are not there, and {stage: (folder, summary, rows)}.

    Raises LabError where report.json is missing, or a file is malformed.
    """
    from lab import measured
    from lab.page import readable
    from lab.sections import adapters_of

    found = {"report.json": measured.read_whole_report(run / "report.json")}
    readers = (measured.read_claims, measured.read_whole_report, measured.read_forgetting, measured.read_kmmlu)
    for name, reader in zip(FILES, readers, strict=True):
        found[name] = reader(run / name) if (run / name).is_file() else None
    curves = {}
    for stage, folder in adapters_of(found["report.json"]).items():
        if (folder / "summary.json").is_file():
            curves[stage] = (folder, *measured.read_curve(folder))
    return readable(found), {
        readable(stage): (folder, *readable(list(rest))) for stage, (folder, *rest) in curves.items()
    }


def build(run, found, curves):
    """(title, lead, sections) of the report."""
    from lab import sections, side_sections

    report = found["report.json"]
    profile, company = report.get("profile", "?"), report.get("entity") or "the company"
    model = (report.get("flags") or {}).get("model", "the model")
    lead = f"What {model} knew of {company} and of the world before and after training; every figure with its interval."
    made_of = {run / name: content for name, content in found.items() if content}
    made_of |= {folder / "summary.json": summary for folder, summary, _ in curves.values()}
    parts = [
        sections.stages(report),
        sections.answers(report),
        sections.training(curves),
        side_sections.forgetting(found["forgetting.json"], found["no_replay.json"]),
        side_sections.kmmlu(found["kmmlu.json"]),
        side_sections.claims(found["claims.json"]),
        sections.data(report),
        sections.provenance(made_of),
    ]
    return f"{company}: report of profile {profile}", lead, parts


def main(argv=None):
    args = parse_args(argv)
    from lab import page

    content = build(args.run, *read(args.run))
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
