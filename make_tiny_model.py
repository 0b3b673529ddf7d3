"""Build an embedded checkpoint from data_general/ alone:  python make_tiny_model.py --family hyperclovax

It trains a tokenizer and, from scratch for a fixed number of steps, a small text model on the authored Korean world, and
writes both in a real model's file layout, in bfloat16:
  hyperclovax  HyperCLOVA X SEED Think 32B's: a vision-language config, vision tower and projector keys (random: nothing in
               this lab looks at pictures)
  gemma2       Gemma-2's: tied embeddings, capped logits, a chat template that knows no system role
The same machine gives the same bytes. It takes about half an hour on 2 cores; the checkpoint appears whole, with
summary.json, or not at all.

Exit codes: 0 built, 1 bad input, 2 bad usage.
"""

import argparse
import sys
import time
from pathlib import Path

from lab import building, hub, places
from lab.cli import finish, hashes, write_atomically, write_summary

FAMILIES = {"hyperclovax": hub.SOURCE_TINY, "gemma2": hub.GEMMA_TINY}


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data_general"), help="folder of the authored world")
    parser.add_argument("--family", choices=list(FAMILIES), default="hyperclovax", help="(%(default)s)")
    places_ = ", ".join(str(path) for path in FAMILIES.values())
    parser.add_argument("--mlx-path", type=Path, help=f"where to ({places_})")
    parser.add_argument("--steps", type=int, default=5000, help="optimizer updates (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=24, help="documents an update (%(default)s)")
    parser.add_argument(
        "--learning-rate", type=float, default=3e-3, help="peak rate, cosine to a tenth (%(default)s)"
    )
    parser.add_argument("--weight-decay", type=float, default=0.1, help="of AdamW (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true", help="overwrite a checkpoint that is there")
    parser.add_argument("--output", type=Path, help="where a copy of <mlx-path>/summary.json goes")
    args = parser.parse_args(argv)
    args.mlx_path = args.mlx_path or FAMILIES[args.family]
    return args


def family_of(args):
    """The module that knows the family to be built."""
    from lab import tiny_gemma, tiny_hyperclovax

    return {"hyperclovax": tiny_hyperclovax, "gemma2": tiny_gemma}[args.family]


def main(argv=None):
    args = parse_args(argv)
    places.refuse_place(args.mlx_path, args.data)
    places.refuse_existing(places.resolved(args.mlx_path), args.force)
    from lab import pretraining

    started, inputs = time.monotonic(), hashes([args.data])
    documents = pretraining.documents(args.data, args.seed)
    family = family_of(args)
    template = family.template_of(args.data)
    tokenizer = family.train_tokenizer(documents, template)
    # entered before the training, so that a full disk or a folder that cannot be written is told at once
    with building.building(args.mlx_path, pretraining.CHECKPOINT_BYTES) as folder:
        model, curve = pretraining.pretrain(family, tokenizer, documents, args)
        family.save_checkpoint(folder, model, tokenizer, template, args.seed)
        minutes = (time.monotonic() - started) / 60
        results = {"documents": len(documents), "minutes": round(minutes, 1), "curve": curve}
        write_summary(folder / "summary.json", args, inputs, results)
    if args.output:
        write_atomically(args.output, (args.mlx_path / "summary.json").read_bytes())
    print(f"built {args.mlx_path} in {minutes:.1f} minutes; last training loss {curve[-1]['loss']:.3f} nats/token")
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
