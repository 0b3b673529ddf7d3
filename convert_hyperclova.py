"""Make a quantized text model for mlx-lm out of a HyperCLOVA X SEED checkpoint:

  python convert_hyperclova.py --hf-path models/HyperCLOVAX-SEED-Think-32B
  python convert_hyperclova.py --hf-path naver-hyperclovax/HyperCLOVAX-SEED-Think-14B --dry-run
  python convert_hyperclova.py --hf-path models/HyperCLOVAX-SEED-Think-Tiny --no-quantize
  python convert_hyperclova.py --mlx-path models/HyperCLOVAX-SEED-Think-32B-Text-8bit --verify

Takes the text backbone, folds what is not stock into its weights, quantizes it chunk by chunk, and writes a model
that plain mlx-lm loads. Stopped at any moment, the same command goes on from the last finished shard; the result
appears whole, checked against the source, with a summary.json that holds the hash of every file.

Exit codes: 0 done, 1 bad input, 2 bad usage, 3 the result failed its check, 75 stopped: run it again to go on.
"""

import argparse
import os
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from lab import building, conversion_plan, conversion_report, hub, places
from lab.cli import STOPPED, LabError, check_place, finish, write_atomically
from lab.consumed import Consumed


def parse_args(argv):
    layout = argparse.RawDescriptionHelpFormatter
    # No abbreviations: "--c" would be --consume-source, which deletes.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout, allow_abbrev=False)
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
    text = (
        "print what would be done, and whether this machine can do it; exits 0 also where something DOES NOT FIT"
    )
    add("--dry-run", action="store_true", help=text)
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
    refuse_useless(parser, args)
    if args.hf_path and os.path.isdir(os.path.expanduser(args.hf_path)):
        args.hf_path = os.path.expanduser(args.hf_path)
    if not args.verify:
        args.hf_path = args.hf_path or str(hub.SOURCE_32B)
        kind = f"{args.q_bits}bit" if args.quantize else args.dtype or "unquantized"
        args.mlx_path = args.mlx_path or Path("models") / f"{Path(os.path.abspath(args.hf_path)).name}-Text-{kind}"
    for name in ("mlx_path", "output"):
        if getattr(args, name) is not None:
            setattr(args, name, Path(os.path.expanduser(getattr(args, name))))
    return args


def refuse_useless(parser, args):
    """End with a usage error where a flag is missing, or would be ignored."""
    given = {name for name, value in vars(args).items() if value != parser.get_default(name)}
    useless = {
        "--verify": given - {"verify", "mlx_path", "hf_path"} if args.verify else (),
        "--dry-run": given & {"output"} if args.dry_run else (),
        "--no-quantize": () if args.quantize else given & {"q_bits", "q_group_size"},
    }
    for mode, names in useless.items():
        if names:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(names))
            parser.error(f"{flags}: of no use with {mode}; leave it out")
    if args.verify and not args.mlx_path:
        parser.error("--verify needs --mlx-path, the folder to verify")
    if args.hf_path == "":
        parser.error("--hf-path is empty; name a local folder or a hub id")


def refuse_consuming(source):
    """Raise LabError where no shard could be deleted, before hours of work and not after them."""
    try:
        with tempfile.TemporaryFile(dir=source.folder):
            pass
    except OSError as error:
        what = f"nothing can be deleted in {source.folder} ({error.strerror})"
        raise LabError(f"--consume-source: {what}; leave the flag out, or make that folder writable") from error


def refuse_output(args):
    """Raise LabError where --output cannot be written, or would lie in the source or in the result's way."""
    if args.output is None:
        return
    path, target = places.resolved(args.output), places.resolved(args.mlx_path)
    if path == target / places.SUMMARY:
        return
    near = [places.resolved(args.hf_path), target, places.partial_of(target), places.replaced_of(target)]
    if path.is_dir() or any(folder in (path, *path.parents) for folder in near):
        raise LabError(f"--output {args.output}: a folder, or inside source or result; name another file")
    check_place(args.output)
    if path.exists() and not places.is_result(path.parent, path.name):
        raise LabError(f"--output {args.output}: a file that no conversion wrote; name another one")


def dry_run(args):
    """Print the plan. No weight is read; of a hub id the small files are fetched and the shards' headers."""
    places.refuse_place(args.mlx_path, args.hf_path)
    source, target = hub.find_source(args.hf_path, args.revision, "headers"), places.resolved(args.mlx_path)
    consumed = consumed_by(building.look_at(target))  # only the unfinished run knows what the deleted shards held
    plan = conversion_plan.make_plan(source, args, consumed)
    conversion_report.print_plan(plan, args)
    conversion_report.print_place(target, args.force)


def convert(args):
    """Build the model, or go on with what a stopped run has built of it."""
    places.refuse_place(args.mlx_path, args.hf_path)
    refuse_output(args)
    with building.going_on(args.mlx_path) as build:
        places.refuse_existing(build.target, args.force)
        source = hub.find_source(args.hf_path, args.revision, "later")
        if args.consume_source:
            refuse_consuming(source)
        consumed = consumed_by(build)
        plan = conversion_plan.make_plan(source, args, consumed)
        begin(build, plan, consumed)
        if not build.complete:
            from lab import conversion_run, device  # here: both load MLX

            print(device.describe(), flush=True)
            conversion_run.run(plan, build, args)
        with uninterrupted():
            build.finish()


@contextmanager
def uninterrupted():
    """Let Ctrl-C and SIGTERM pass: what is done here takes a moment, and half of it would be told wrongly."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(args):
    """Print what the result is, and write the copy of its summary."""
    folder = args.mlx_path if args.mlx_path.is_dir() else places.resolved(args.mlx_path)  # of nowhere/../model
    if args.output:
        write_atomically(args.output, (folder / places.SUMMARY).read_bytes())
    conversion_report.print_summary(folder)


def consumed_by(build):
    """The Consumed of an unfinished run, or None where that has deleted no source shard."""
    return Consumed(build) if build.said("consumed") else None


def begin(build, plan, consumed):
    """Go on with the unfinished conversion, or start over, and say which and why.

    Raises LabError where starting over would throw away what was made of a consumed source.
    """
    revision = plan.source.revision
    record = {**plan.record(), "revision": revision}
    keep = bool(build.plan) and conversion_plan.same_shards(build.plan, record)
    changed = conversion_plan.differences(build.plan, record) if build.plan and not keep else []
    if consumed:  # the plan takes such a shard to be as it was; the hub may have another commit by now
        promised = {name: plan.source.digests.get(name, was) for name, was in consumed.identities.items()}
        changed += [f"{name} has changed" for name, was in consumed.identities.items() if promised[name] != was]
    undo, old = "give the settings that were", (build.plan or {}).get("revision")
    if changed and old and revision and old != revision:
        changed.append(f"the hub's commit is {revision} now, not {old}")
        undo = f"add --revision {old}"
    if changed and consumed:
        what = f"is unfinished, its source is consumed in part, and {'; '.join(changed)}"
        raise LabError(f"{build.folder}: {what}; {undo} and run the same command, or {consumed.remedy()}")
    if build.begin(record, keep):
        print(f"going on with {build.folder}: {len(build.said('shard'))} of {len(plan.shards)} shards are there")
    elif changed:
        print(f"{build.folder}: started over, for {'; '.join(changed)}")


def main(argv=None):
    args = parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if args.verify:
        conversion_report.verify(args.mlx_path, args.hf_path)
    elif args.dry_run:
        dry_run(args)
    else:
        remedy = "the same command goes on from the last finished shard"
        try:
            convert(args)
            remedy = "the result is whole and in its place"
            tell(args)
        except KeyboardInterrupt:
            print(f"error: stopped; {remedy}", file=sys.stderr)
            return STOPPED
    return 0


if __name__ == "__main__":
    code = finish(main)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C, while threads end, would change the exit code
    sys.exit(code)
