"""Did continued pre-training put the facts in? The model gets the beginning of each sentence and must finish
it:

  python verify_cpt_completion.py --adapter-path base adapters_solverx_cpt_hcx

The beginning is cut before the fact's accepted string; right is a continuation whose first sentence holds it.
Prints the share right with its 95 % Wilson interval for each stage, and some answers, wrong ones first.

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
    stages.verify(parse_args(argv), ("completion",))
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
