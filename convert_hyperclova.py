"""Make a quantized text model for mlx-lm out of a HyperCLOVA X SEED checkpoint:

  python convert_hyperclova.py --hf-path models/HyperCLOVAX-SEED-Think-32B
  python convert_hyperclova.py --hf-path naver-hyperclovax/HyperCLOVAX-SEED-Think-14B --dry-run
  python convert_hyperclova.py --mlx-path models/HyperCLOVAX-SEED-Think-32B-Text-8bit --verify

Takes the text backbone, folds what is not stock into its weights, quantizes it chunk by chunk, and writes a model
that plain mlx-lm loads. Stopped at any moment, the same command goes on from the last finished shard; the result
appears whole, checked against the source, with a summary.json that holds the hash of every file.

Exit codes: 0 done, 1 bad input, 2 bad usage, 3 the result failed its check, 75 stopped: run it again to go on.
"""

import argparse
import signal
import sys
from pathlib import Path

from lab import building, conversion_plan, conversion_report, hub
from lab.cli import LabError, finish, write_atomically


def parse_args(argv):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    add = parser.add_argument
    add("--hf-path", help=f"local folder or hub id ({hub.SOURCE_32B})")
    add("--revision", help="branch, tag or commit of a hub id (main)")
    add("--mlx-path", type=Path, help="where to (models/<name of the checkpoint>-Text-<bits>bit)")
    switch = {"action": argparse.BooleanOptionalAction, "default": True}
    add("-q", "--quantize", help="quantize (the default), or keep every weight as it is", **switch)
    add("--q-bits", type=int, default=8, choices=(2, 3, 4, 5, 6, 8), help="bits a weight (%(default)s)")
    text = "weights that share a scale (%(default)s)"
    add("--q-group-size", type=int, default=64, choices=(32, 64, 128), help=text)
    add(
        "--dtype",
        choices=conversion_plan.DTYPES,
        help="of scales, and of what is not quantized (as in the source)",
    )
    add("--force", action="store_true", help="overwrite a result that is there")
    add("--dry-run", action="store_true", help="print what would be done, and whether this machine can do it")
    add(
        "--verify",
        action="store_true",
        help="hash a result, and its source where it is there, against summary.json",
    )
    add(
        "--consume-source",
        action="store_true",
        help="DELETE each source shard once it is converted, for small disks",
    )
    add("--output", type=Path, help="where a copy of <mlx-path>/summary.json goes")
    args = parser.parse_args(argv)
    if args.verify and not args.mlx_path:
        parser.error("--verify needs --mlx-path, the folder to verify")
    if not args.verify:
        args.hf_path = args.hf_path or str(hub.SOURCE_32B)
        kind = f"{args.q_bits}bit" if args.quantize else args.dtype or "unquantized"
        args.mlx_path = args.mlx_path or Path("models") / f"{Path(args.hf_path).name}-Text-{kind}"
    return args


def dry_run(args):
    """Print the plan; no weight is read and nothing is written."""
    plan = conversion_plan.make_plan(hub.find_source(args.hf_path, args.revision, "headers"), args)
    conversion_report.print_plan(plan, args)


def convert(args):
    """Build the model, or go on with what a stopped run has built of it."""
    with building.going_on(args.mlx_path) as build:
        building.refuse_target(args.mlx_path, args.hf_path, args.force)
        source = hub.find_source(args.hf_path, args.revision, "later" if args.consume_source else "all")
        consumed = conversion_plan.Consumed(build) if build.said("consumed") else None
        plan = conversion_plan.make_plan(source, args, consumed)
        record = plan.record()
        if consumed and record["fingerprint"] != build.plan["fingerprint"]:
            what = f"was begun with other settings or another source; repeat those, or {consumed.remedy()}"
            raise LabError(f"{build.folder}: the unfinished conversion there {what}")
        unfinished = build.plan is not None
        if build.begin(record):
            print(
                f"going on with {build.folder}: {len(build.said('shard'))} of {len(plan.shards)} shards are there"
            )
        elif unfinished:
            print(f"{build.folder}: made of another source or with other settings, so it is started over")
        if not build.complete:
            from lab import conversion_run, device  # here: both load MLX

            print(device.describe(), flush=True)
            conversion_run.run(plan, build, args)
        build.finish()
    if args.output:
        write_atomically(args.output, (args.mlx_path / building.SUMMARY).read_bytes())
    conversion_report.print_summary(args.mlx_path)


def main(argv=None):
    args = parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if args.verify:
            conversion_report.verify(args.mlx_path, args.hf_path)
        elif args.dry_run:
            dry_run(args)
        else:
            convert(args)
    except KeyboardInterrupt:
        print("error: stopped; the same command goes on from the last finished shard", file=sys.stderr)
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
