"""How long `convert_hyperclova.py --dry-run` takes, beside a bare start of Python:  python bench/dry_run.py

On the embedded checkpoint and on sparse ones, whose shards have true headers and lengths, and holes for weights: the
shape of the 32B's text part (65 GB), and one of 10,000 tensors in 500 shards. The real command in a process of its own, in
turn with `python -c pass`. Prints medians, the least and the largest, and ratios.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.convert import CONFIG, EMBEDDED, header_of, shapes, spread, write_rest  # noqa: E402  (after the path)

# Source of the 32B's figures: config.json of naver-hyperclovax/HyperCLOVAX-SEED-Think-32B.
LARGE = {
    "model_type": "hyperclovax",
    "hidden_size": 5120,
    "intermediate_size": 24192,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "num_hidden_layers": 72,
    "attention_multiplier": 128**-0.5,
}
MANY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 2048,
    "num_hidden_layers": 1111,
}


def make_sparse(folder, changes, count):
    """Write a bfloat16 checkpoint in `count` shards, with holes for weights; returns (tensors, bytes)."""
    folder.mkdir()
    config = {**CONFIG, **changes}
    tensors, total = list(shapes(config).items()), 0
    shards = {f"model-{n + 1:05d}-of-{count:05d}.safetensors": tensors[n::count] for n in range(count)}
    for file, own in shards.items():
        header, nbytes = header_of(own)
        (folder / file).write_bytes(header)
        os.truncate(folder / file, len(header) + nbytes)
        total += nbytes
    write_rest(folder, config, shards)
    return len(tensors), total


def seconds(command):
    """Wall seconds of a command that must succeed."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return time.perf_counter() - started


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="turns (%(default)s)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        sources = {"embedded": EMBEDDED}
        for title, of, shards in (("32B's shape", LARGE, 14), ("many tensors", MANY, 500)):
            count, nbytes = make_sparse(Path(name) / title, of, shards)
            sources[title] = Path(name) / title
            print(f"{title}: {count:,} tensors, {nbytes / 1e9:.1f} GB, in {shards} shards", flush=True)
        target = Path(name) / "target"
        for title, source in sources.items():
            command = [
                sys.executable,
                "convert_hyperclova.py",
                "--dry-run",
                "--hf-path",
                source,
                "--mlx-path",
                target,
            ]
            turns = [(seconds(command), seconds([sys.executable, "-c", "pass"])) for _ in range(args.repeats)]
            whole, bare = (statistics.median(column) for column in zip(*turns, strict=True))
            ratios = spread(own / start for own, start in turns)
            print(
                f"{title}: {whole:.2f} s ({min(t[0] for t in turns):.2f} to {max(t[0] for t in turns):.2f}), ",
                end="",
            )
            print(f"{ratios} times a bare start of Python ({bare:.3f} s)", flush=True)


if __name__ == "__main__":
    main()
