"""What did training cost? General questions that have nothing to do with the company, in wordings trained
nowhere:

  python verify_general_performance.py --adapter-path base sft=adapters_solverx_sft_hcx

general is the share answered right; glasses counts the answers that speak of the company all the same
("coloured glasses", fewer is better). Where the adapter's data names the general facts it replayed, those are
told apart from the others.

Exit codes: 0 measured, 1 bad input, 2 bad usage.
"""

import sys

from lab import stages
from lab.cli import finish


def parse_args(argv):
    parser = stages.command_parser(__doc__)
    stages.add_model_flags(parser)
    stages.add_probe_flags(parser, show=5)
    return parser.parse_args(argv)


def main(argv=None):
    answers = stages.verify(parse_args(argv), ("general", "glasses"))
    for stage, rows in answers.items():
        for row in rows:
            if row.get("speaks_of_company"):
                print(f"{stage} speaks of the company: {row['prompt']} -> {row['answer']}")
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
