"""Build the embedded HyperCLOVA X-shaped checkpoint from data_general/ alone:  python make_tiny_model.py

It trains a tokenizer and, from scratch for a fixed number of steps, a small text model on the authored Korean world, and
writes both in the file layout of HyperCLOVA X SEED Think 32B: a vision-language config, sharded bfloat16 safetensors with
an index, vision tower and projector keys (random: nothing in this lab looks at pictures), tokenizer, chat template.
The same machine gives the same bytes. It takes some 25 minutes on 2 cores.

Exit codes: 0 built, 1 bad input, 2 bad usage.
"""

import argparse
import sys
import time
from pathlib import Path

from lab.cli import LabError, finish, write_summary


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data_general"), help="folder of the authored world")
    parser.add_argument(
        "--mlx-path", type=Path, default=Path("models/HyperCLOVAX-SEED-Think-Tiny"), help="where to"
    )
    parser.add_argument("--steps", type=int, default=5000, help="optimizer updates (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=24, help="documents an update (%(default)s)")
    parser.add_argument(
        "--learning-rate", type=float, default=3e-3, help="peak rate, cosine to a tenth (%(default)s)"
    )
    parser.add_argument("--weight-decay", type=float, default=0.1, help="of AdamW (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true", help="overwrite a checkpoint that is there")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if (args.mlx_path / "config.json").exists() and not args.force:
        raise LabError(
            f"{args.mlx_path}: holds a checkpoint already; --force overwrites it, --mlx-path names another"
        )
    from lab import pretraining

    started = time.monotonic()
    documents = pretraining.documents(args.data, args.seed)
    tokenizer = pretraining.train_tokenizer(documents, args.data / "chat_template.jinja")
    model, curve = pretraining.pretrain(tokenizer, documents, args)
    pretraining.save_checkpoint(args.mlx_path, model, tokenizer, args.data / "chat_template.jinja", args.seed)
    minutes = (time.monotonic() - started) / 60
    print(f"built {args.mlx_path} in {minutes:.1f} minutes; last training loss {curve[-1]['loss']:.3f} nats/token")
    results = {"documents": len(documents), "minutes": round(minutes, 1), "curve": curve}
    write_summary(args.mlx_path / "summary.json", args, [args.data], results)
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
