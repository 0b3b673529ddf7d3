"""Forgetting against the share of general rows in SFT: every point measured in one load of the model, as JSON and a table.

  python compare_replay.py --default replay-50 --output runs/tiny/forgetting.json \\
      --adapter-path base replay-0=DIR replay-25=DIR replay-50=DIR self-50=DIR
  python compare_replay.py --report runs/tiny/forgetting.json      (only prints the table)

A point's share is counted in the data that its adapter was trained on. The verdict names the smallest share that a paired
test tells apart from the best one in no metric: general, glasses, recall, recall_paraphrase. Each point is one training
run: the intervals hold for other questions, not for other seeds.

Exit codes: 0 measured, 1 bad input, 2 bad usage.
"""

import sys
from pathlib import Path

from lab import forgetting, stages
from lab.cli import LabError, finish
from lab.report import METRICS, show_lines


def parse_args(argv):
    parser = stages.command_parser(__doc__)
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="print this report, measure nothing")
    parser.add_argument(
        "--default", metavar="NAME", help="the point that equals the profile's default (the first)"
    )
    stages.add_model_flags(parser)
    stages.add_probe_flags(parser)
    return parser.parse_args(argv)


def measured(args):
    """(the report, {stage: answers}) of --adapter-path: one bare model, and a point for each adapter."""
    named = stages.stages_of(args)
    points = [stage for stage in named if stage.adapter]
    if len(points) == len(named) or not points:
        raise LabError("--adapter-path: name base and at least one adapter, `base replay-50=DIR`")
    args.default = args.default or points[0].name
    if args.default not in [stage.name for stage in points]:
        raise LabError(f"--default {args.default}: no such point; there are {', '.join(s.name for s in points)}")
    for stage in points:  # what cannot be counted is told before the measurement, not after it
        forgetting.point(stage.name, stage.adapter, {})
    content, answers = stages.run(args, tuple(METRICS))
    counted = content["stages"]
    found = [forgetting.point(stage.name, stage.adapter, counted[stage.name]) for stage in points]
    compared = forgetting.comparisons(found, answers)
    base = next(stage.name for stage in named if not stage.adapter)
    report = {"points": found, "base": counted[base], "default": args.default, "paired": compared}
    return {**report, "verdict": forgetting.verdict(found, compared, args.default)}, answers


def show(report):
    """Print the table and the verdict."""
    show_lines(forgetting.table(report))
    print(report["verdict"])


def main(argv=None):
    args = parse_args(argv)
    if args.report:
        show(forgetting.read(args.report))
        return 0
    from lab.records import write_jsonl

    report, answers = measured(args)
    if args.output:
        for stage, rows in answers.items():
            write_jsonl(args.output.with_name(f"{args.output.stem}_{stage}.jsonl"), rows)
        stages.save(args, report)
    show(report)
    print(f"report: {args.output}" if args.output else "nothing written; --output FILE.json keeps it")
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
