"""KMMLU on the 8-bit model and its adapters, as lm-evaluation-harness scores it, the base model loaded once:

  python evaluate_kmmlu_8bit.py --adapter-path base cpt=adapters_solverx_cpt_hcx --subset Law Political-Science-and-Sociology
  python evaluate_kmmlu_8bit.py --subset all --shots 5 --output runs/hcx/kmmlu.json
  python evaluate_kmmlu_8bit.py --data-dir my_kmmlu --subset STEM --limit 50 --chat

The data comes from the Hugging Face hub (HAERAE-HUB/KMMLU, CC-BY-ND-4.0), or from a folder in its layout. With --output,
kmmlu_STAGE.jsonl beside it holds every item as soon as it is computed: killed and run again, the same command goes on
there and ends with the same score. Items of other settings, data or adapters are moved aside (.old) and begun anew.

Exit codes: 0 measured, 1 bad input, 2 bad usage, 75 stopped by Ctrl-C.
"""

import sys

from lab import kmmlu_command, stages
from lab.cli import finish
from lab.hub import default_hcx


def parse_args(argv):
    parser = stages.command_parser(__doc__)
    kmmlu_command.add_flags(parser, default_hcx())
    return parser.parse_args(argv)


def main(argv=None):
    kmmlu_command.evaluate(parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
