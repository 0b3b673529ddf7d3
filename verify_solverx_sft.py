"""Does the model answer questions about the company, and does it know who it is? Asked in chat, judged by
accepted strings:

  python verify_solverx_sft.py --adapter-path cpt=adapters_solverx_cpt_hcx sft=adapters_solverx_sft_hcx

recall asks in the wordings that were trained, recall_paraphrase in wordings that were trained nowhere,
identity who it is (two thirds in new wordings). Prints each share with its 95 % Wilson interval, and some
answers, wrong ones first.

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
    stages.verify(parse_args(argv), ("recall", "recall_paraphrase", "identity"))
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
