"""A sample of four-option questions in the layout of KMMLU's files:  python prepare_kmmlu_sample.py

Made of the general facts of data_general/, so that `make kmmlu` runs without a download. It is NOT KMMLU: its subjects
have names of their own, its summary says "sample": true, and so does whatever is measured on it.

Exit codes: 0 written, 1 bad input, 2 bad usage.
"""

import argparse
import sys
from pathlib import Path

from lab.cli import finish, remove_summary, write_atomically, write_summary


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--general", type=Path, default=Path("data_general"), help="general facts (%(default)s)")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("data_kmmlu_sample"), help="where to (%(default)s)"
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    from lab import kmmlu_sample

    made = kmmlu_sample.files(args.general)
    remove_summary(args.output_dir)
    for name, text in made.items():
        write_atomically(args.output_dir / name, text)
    subjects = sorted({Path(name).stem.rpartition("-")[0] for name in made})
    items = sum(text.count("\n") - 1 for name, text in made.items() if name.endswith("-test.csv"))
    results = {"sample": True, "subjects": subjects, "items": items}
    write_summary(args.output_dir / "summary.json", args, [args.general], results)
    print(f"{args.output_dir}: {len(subjects)} subjects, {items} items; a sample of this lab's own, NOT KMMLU")
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
