"""KMMLU on Gemma-2 and its adapters, as lm-evaluation-harness scores it, the base model loaded once:

  python evaluate_kmmlu_gemma.py --model google/gemma-2-9b-it --adapter-path base tuned=adapters --subset Law
  python evaluate_kmmlu_gemma.py --data-dir my_kmmlu --subset STEM --limit 50 --chat

All else is as in evaluate_kmmlu_8bit.py: the data from the hub (HAERAE-HUB/KMMLU, CC-BY-ND-4.0) or a folder in its layout;
with --output every item is kept as soon as it is computed, and the same command goes on where it was stopped.

Exit codes: 0 measured, 1 bad input, 2 bad usage, 75 stopped by Ctrl-C.
"""

import sys

from lab import kmmlu_command, stages
from lab.cli import finish
from lab.hub import default_gemma


def parse_args(argv):
    parser = stages.command_parser(__doc__)
    kmmlu_command.add_flags(parser, default_gemma())
    return parser.parse_args(argv)


def main(argv=None):
    kmmlu_command.evaluate(parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
