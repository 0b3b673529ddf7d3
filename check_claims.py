"""Which of the seed's findings hold for what a run measured, each with the figures that decide it.

  python check_claims.py --run runs/tiny
  python check_claims.py --run runs/hcx --claims my_claims.yaml --output runs/hcx/claims.json

The claims are data (configs/claims.yaml). Verdicts go by 95 % intervals: "holds" and "does not hold" where the interval
leaves no doubt, "undecided" where it straddles the bound, "not measured" with the target that measures it.

Exit codes: 0 judged, and every claim that does not hold was doubted for this profile; 1 bad input (a claim that
cannot be judged, a malformed file); 2 bad usage; 3 a claim does not hold.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from lab.cli import CheckFailed, finish, write_summary

CLAIMS = Path("configs/claims.yaml")


def parse_args(argv):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--run", type=Path, default=Path("runs/tiny"), metavar="DIR", help="folder with report.json (%(default)s)")
    add("--claims", type=Path, default=CLAIMS, metavar="FILE.yaml", help="the claims (%(default)s)")
    add("--output", type=Path, metavar="FILE.json", help="where the verdicts go (claims.json in --run)")
    return parser.parse_args(argv)


def show(results):
    """Print every claim with its verdict and figures."""
    for result in results:
        print(f"{result['verdict']}: {result['id']}: {result['claim']}")
        for figure in result["figures"]:
            mark = "given " if figure.get("given") else ""
            print(f"    {mark}{figure['verdict']}: {figure['text']}")
        if result["note"]:
            print(f"    {result['note']}")
        if result["doubted"]:
            print(f"    doubted: {result['doubted']}")
        if result["make"]:
            print(f"    to measure it: {', '.join(f'`{target}`' for target in result['make'])}")


def counts(results):
    """{verdict: how many}, in the order of the verdicts."""
    from lab.shapes import VERDICTS

    tally = Counter(result["verdict"] for result in results)
    return {verdict: tally[verdict] for verdict in VERDICTS}


def main(argv=None):
    args = parse_args(argv)
    args.output = args.output or args.run / "claims.json"
    from lab import claims, evidence

    listed = claims.read_claims(args.claims)
    found, inputs, profile = evidence.gather(args.run)
    results = [claims.judge(claim, found, profile) for claim in listed]
    show(results)
    tally = counts(results)
    write_summary(
        args.output, args, [args.claims, *inputs], {"profile": profile, "counts": tally, "claims": results}
    )
    print(f"{len(results)} claims: {', '.join(f'{verdict} {number}' for verdict, number in tally.items())}")
    print(f"verdicts: {args.output}")
    for result in results:
        if result["doubted"] and result["verdict"] == claims.HOLDS:
            print(f"note: {result['id']} holds, though {args.claims} doubts it for {profile}")
    if failed := [one["id"] for one in results if one["verdict"] == claims.FAILS and not one["doubted"]]:
        raise CheckFailed(f"{args.run}: {len(failed)} of {len(results)} claims do not hold: {', '.join(failed)}")
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
