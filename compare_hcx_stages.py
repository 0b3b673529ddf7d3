"""Base, CPT and SFT side by side: every metric of every stage in one load of the model, as report.json and a
table.

  python compare_hcx_stages.py --profile hcx --output runs/hcx/report.json \\
      --adapter-path base cpt=adapters_solverx_cpt_hcx sft=adapters_solverx_sft_hcx
  python compare_hcx_stages.py --report runs/hcx/report.json      (only prints the table)
  python compare_hcx_stages.py --report runs/tiny/report.json --check configs/tiny/bounds.yaml

With --output, answers_STAGE.jsonl with every prompt, answer and judgement stands beside the report.

Exit codes: 0 done, 1 bad input, 2 bad usage, 3 a bound of --check does not hold.
"""

import sys
from pathlib import Path

from lab import bounds, stages
from lab.cli import finish
from lab.report import METRICS, read_report, show


def parse_args(argv):
    parser = stages.command_parser(__doc__)
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="print this report, measure nothing")
    parser.add_argument("--profile", default="tiny", help="the settings' name, for the report (%(default)s)")
    text = "bounds that must hold, as in configs/tiny/bounds.yaml"
    parser.add_argument("--check", type=Path, metavar="FILE.yaml", help=text)
    parser.add_argument("--no-table", action="store_true", help="measure and write, print no table")
    stages.add_model_flags(parser)
    stages.add_probe_flags(parser)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.report:
        report = read_report(args.report)
        limits = bounds.read_bounds(args.check, list(report["stages"])) if args.check else []
        show(report)
        if args.check:
            bounds.check(args.check, limits, report)
        return 0
    named = [stage.name for stage in stages.stages_of(args)] if args.check else []
    limits = bounds.read_bounds(args.check, named) if args.check else []  # faults are told before the measurement
    from lab.records import write_jsonl

    content, answers = stages.run(args, tuple(METRICS))
    report = {"profile": args.profile, **content}
    if args.output:
        for stage, rows in answers.items():
            write_jsonl(args.output.with_name(f"answers_{stage}.jsonl"), rows)
        stages.save(args, report)
    if not args.no_table:
        show(report)
    print(f"report: {args.output}" if args.output else "nothing written; --output FILE.json keeps it")
    if args.check:
        bounds.check(args.check, limits, report)
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
