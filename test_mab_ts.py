"""Can the model still program? It is asked for Thompson sampling in Python, and the program is run:

  python test_mab_ts.py --adapter-path base sft=adapters_solverx_sft_hcx --check

The program runs in a sandbox (no files, no network, no processes; limits on time and memory; Python's computing
modules, and numpy where the system can confine it) against bandits that this side owns: it draws the rewards and counts
the pulls. Verdicts: no_code, does_not_run, runs_and_loses, finds_best_arm.

Exit codes: 0 measured, 1 bad input, 2 bad usage, 3 with --check: no program of some stage finds the best arm.
"""

import sys

from lab import sandbox, stages
from lab.cli import CheckFailed, finish


def parse_args(argv):
    parser = stages.command_parser(__doc__)
    stages.add_model_flags(parser)
    stages.add_probe_flags(parser)
    parser.add_argument("--check", action="store_true", help="exit 3 when a stage finds no best arm")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    print(sandbox.describe())
    answers = stages.verify(args, ("mab_ts",))
    for stage, rows in answers.items():
        for row in rows:
            print(f"\n{stage}: {row['prompt']}\n{row['answer']}\n-> {row['detail']}")
    losing = [stage for stage, rows in answers.items() if not any(row["right"] for row in rows)]
    if args.check and losing:
        names = ", ".join(losing)
        raise CheckFailed(f"{names}: no program finds the best arm; mix general rows into SFT (--replay)")
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
