"""Build the embedded HyperCLOVA X-shaped checkpoint from data_general/ alone:  python make_tiny_model.py

It trains a tokenizer and, from scratch for a fixed number of steps, a small text model on the authored Korean world, and
writes both in the file layout of HyperCLOVA X SEED Think 32B: a vision-language config, sharded bfloat16 safetensors with
an index, vision tower and projector keys (random: nothing in this lab looks at pictures), tokenizer, chat template.
The same machine gives the same bytes. It takes 28 minutes on 2 cores beside other work; the checkpoint appears whole, with
summary.json, or not at all.

Exit codes: 0 built, 1 bad input, 2 bad usage.
"""

import argparse
import sys
import time
from pathlib import Path

from lab import building, hub, places
from lab.cli import finish, hashes, write_atomically, write_summary


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data_general"), help="folder of the authored world")
    parser.add_argument("--mlx-path", type=Path, default=hub.SOURCE_TINY, help="where to (%(default)s)")
    parser.add_argument("--steps", type=int, default=5000, help="optimizer updates (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=24, help="documents an update (%(default)s)")
    parser.add_argument(
        "--learning-rate", type=float, default=3e-3, help="peak rate, cosine to a tenth (%(default)s)"
    )
    parser.add_argument("--weight-decay", type=float, default=0.1, help="of AdamW (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true", help="overwrite a checkpoint that is there")
    parser.add_argument("--output", type=Path, help="where a copy of <mlx-path>/summary.json goes")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    places.refuse_place(args.mlx_path, args.data)
    places.refuse_existing(places.resolved(args.mlx_path), args.force)
    from lab import pretraining

    started, inputs = time.monotonic(), hashes([args.data])
    documents = pretraining.documents(args.data, args.seed)
    template = args.data / "chat_template.jinja"
    tokenizer = pretraining.train_tokenizer(documents, template)
    # entered before the training, so that a full disk or a folder that cannot be written is told at once
    with building.building(args.mlx_path, pretraining.CHECKPOINT_BYTES) as folder:
        model, curve = pretraining.pretrain(tokenizer, documents, args)
        pretraining.save_checkpoint(folder, model, tokenizer, template, args.seed)
        minutes = (time.monotonic() - started) / 60
        results = {"documents": len(documents), "minutes": round(minutes, 1), "curve": curve}
        write_summary(folder / "summary.json", args, inputs, results)
    if args.output:
        write_atomically(args.output, (args.mlx_path / "summary.json").read_bytes())
    print(f"built {args.mlx_path} in {minutes:.1f} minutes; last training loss {curve[-1]['loss']:.3f} nats/token")
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
