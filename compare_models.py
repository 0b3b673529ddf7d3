"""Base and tuned models side by side: the same questions in one load of the model, then speed, memory and size.

  python compare_models.py --model models/Gemma-2-Tiny --adapter-path base tuned=adapters_gemma_tiny \\
      --output runs/gemma/models.json
  python compare_models.py --adapter-path base tuned=DIR --questions mine.jsonl
  python compare_models.py --report runs/gemma/models.json      (only prints it)

Asked are the company's questions (--knowledge) and general ones (--general), with intervals and paired differences; or
--questions, a JSON object a line: {"question": "...", "accept": ["..."]}, without "accept" only shown side by side; or
both, where --metrics is given too.
Speed: the same questions and the same number of new tokens for every stage, the stages in turn, medians of --repeats
rounds. In the answers + is right, - wrong. Training's time and memory come from the cost.json that training leaves.

Exit codes: 0 compared, 1 bad input, 2 bad usage, 3 a bound of --check does not hold.
"""

import sys
from argparse import ArgumentTypeError
from pathlib import Path

from lab import stages
from lab.cli import finish
from lab.hub import default_gemma
from lab.report import METRICS

ASKED = tuple(METRICS)[:-1]  # --questions has a flag of its own


def two_or_more(text):
    """A flag's whole number of at least 2: of one token there is no speed of the next. Raises ArgumentTypeError."""
    if stages.count(text) < 2:
        raise ArgumentTypeError(f"{text!r} is no whole number of at least 2")
    return int(text)


def parse_args(argv):
    parser = stages.command_parser(__doc__)
    add = parser.add_argument
    add("--report", type=Path, metavar="FILE.json", help="print this comparison, measure nothing")
    add("--profile", default="gemma", help="the settings' name, for the report (%(default)s)")
    add("--questions", type=Path, metavar="FILE.jsonl", help="your own questions, in place of all others")
    add("--metrics", nargs="+", choices=ASKED, metavar="METRIC", help=f"what is asked: {', '.join(ASKED)}")
    add("--check", type=Path, metavar="FILE.yaml", help="bounds that must hold, as in configs/gemma/bounds.yaml")
    stages.add_model_flags(parser, default=default_gemma())
    stages.add_probe_flags(parser, show=3)
    add("--repeats", type=stages.count, default=5, help="rounds of the speed measurement (%(default)s)")
    add("--speed-prompts", type=stages.count, default=4, help="questions that it asks (%(default)s)")
    add("--speed-tokens", type=two_or_more, default=32, help="new tokens of each answer (%(default)s)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    from lab import bounds, comparison, comparison_table

    if args.report:
        content = comparison.read(args.report)
    names = list(content["stages"]) if args.report else [stage.name for stage in stages.stages_of(args)]
    limits = bounds.read_bounds(args.check, names) if args.check else []  # faults are told before the measurement
    if not args.report:
        content = comparison.measured(args)
        if args.output:
            comparison.save(args, content)
    comparison_table.show(content, comparison.samples(content, args.show), sys.stdout)
    if not args.report:
        print(f"comparison: {args.output}" if args.output else "nothing written; --output FILE.json keeps it")
    if args.check:
        bounds.check(args.check, limits, content)
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
