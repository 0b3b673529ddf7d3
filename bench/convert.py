"""Memory and speed of convert_hyperclova.py beside mlx_lm.convert and a bare loop:  python bench/convert.py

Makes random checkpoints of 1, 4 and 12 GB (the same tensor shapes, more layers; 35 GB of disk for a while), converts
each in a process of its own, and prints the peak resident memory of each. On the one of 4 GB two others run in turn
with ours: `mlx_lm.convert`, and a bare loop that loads each tensor and calls mx.quantize, nothing more. Prints ratios.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import convert_hyperclova  # noqa: E402  (after the path)
from lab import conversion_plan, hub  # noqa: E402

EMBEDDED = ROOT / "models" / "HyperCLOVAX-SEED-Think-Tiny"
SHARD_BYTES = 1 << 30
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e7,
    "tie_word_embeddings": False,
    "eos_token_id": 3,
}
BARE = """
import sys, time, glob
sys.path.insert(0, {root!r})
from lab.device import mx
started = time.perf_counter()
for shard in sorted(glob.glob({source!r} + "/*.safetensors")):
    tensors = mx.load(shard)
    for name in list(tensors):
        weight = tensors.pop(name)
        mx.eval(mx.quantize(weight, 64, 8) if weight.ndim == 2 else weight)
print("seconds", time.perf_counter() - started)
"""


def shapes(config):
    """{tensor name: shape} of the llama that a config.json describes."""
    hidden, inner, width = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    found = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for number in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return {**found, "model.norm.weight": (hidden,), "lm_head.weight": (config["vocab_size"], hidden)}


def header_of(tensors):
    """(a safetensors file's bytes up to the weights, bytes of the weights) for bfloat16 [(name, shape)]."""
    header, position = {}, 0
    for name, shape in tensors:
        end = position + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw, position


def write_rest(folder, config, shards):
    """Write what goes with the shards {file name: [(name, shape)]}: index, config.json, the embedded tokenizer."""
    where = {name: file for file, tensors in shards.items() for name, _ in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in TOKENIZER:
        shutil.copyfile(EMBEDDED / name, folder / name)


def make_checkpoint(folder, gigabytes):
    """Write a random bfloat16 checkpoint of about so many GB, in shards of 1 GiB, with the embedded tokenizer."""
    sizes = [
        2 * sum(math.prod(shape) for shape in shapes({**CONFIG, "num_hidden_layers": n}).values()) for n in (0, 1)
    ]
    layers = max(1, round((gigabytes * 1e9 - sizes[0]) / (sizes[1] - sizes[0])))
    config = {**CONFIG, "num_hidden_layers": layers}
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.02, 1 << 23).astype("<f4").view("<u4") >> 16  # to bfloat16
    noise = memoryview(noise.astype("<u2").tobytes())
    groups, filled = [[]], 0
    for name, shape in shapes(config).items():
        size = 2 * math.prod(shape)
        if filled + size > SHARD_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append((name, shape))
        filled += size
    shards = {f"model-{n:05d}-of-{len(groups):05d}.safetensors": group for n, group in enumerate(groups, 1)}
    for file, tensors in shards.items():
        write_shard(folder / file, tensors, noise)
    write_rest(folder, config, shards)
    os.sync()  # or writing it would go on beside what is measured first
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def write_shard(path, tensors, noise):
    """Write [(name, shape)] filled with `noise`, over and over."""
    header, left = header_of(tensors)
    with open(path, "wb") as file:
        file.write(header)
        while left:
            left -= file.write(noise[: min(left, len(noise))])


def measured(command):
    """(wall seconds, peak resident bytes, what it printed) of a command in a process of its own."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        out.seek(0)
        printed = out.read().decode()
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{printed}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), printed


def ours(source, target):
    """Convert with the command; returns (seconds of the whole command, of the shards alone, peak, largest shard)."""
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "convert_hyperclova.py", "--hf-path", source, "--mlx-path", target]
    seconds, peak, printed = measured([str(part) for part in command])
    shards = next(line for line in printed.splitlines() if line.startswith("converted in "))
    largest = max(path.stat().st_size for path in target.glob("*.safetensors"))
    return seconds, float(shards.split()[2]), peak, largest


def bare(source):
    """(seconds, peak) of the bare loop; the seconds without Python's and MLX's start."""
    code = BARE.format(root=str(ROOT), source=str(source))
    _, peak, printed = measured([sys.executable, "-c", code])
    return float(printed.split()[-1]), peak


def theirs(source, target):
    """(seconds, peak) of mlx_lm.convert at the same settings."""
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "mlx_lm", "convert", "--hf-path", source, "--mlx-path", target]
    seconds, peak, _ = measured([str(part) for part in [*command, "-q", "--q-bits", "8", "--q-group-size", "64"]])
    return seconds, peak


def parse_args(argv):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    add = parser.add_argument
    add("--sizes", nargs="+", type=float, default=[1, 4, 12], help="GB of the checkpoints (%(default)s)")
    add("--compared", type=float, default=4, help="GB of the one that the others convert, too (%(default)s)")
    add("--repeats", type=int, default=3, help="turns of that comparison (%(default)s)")
    add("--folder", type=Path, help="where the checkpoints are made for the while (a temporary folder)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder, peaks = Path(name), {}
        for size in args.sizes:
            source, target = folder / "source", folder / "target"
            nbytes = make_checkpoint(source, size)
            seconds, shards, peak, largest = ours(source, target)
            peaks[size] = peak
            plan = conversion_plan.make_plan(hub.find_source(str(source)), convert_hyperclova.parse_args([]))
            estimate = plan.peak_memory(conversion_plan.cores())
            print(
                f"{nbytes / 1e9:.1f} GB: peak {peak / 1e6:.0f} MB, {peak / largest:.2f} of the largest output shard"
            )
            print(
                f"  ({seconds:.1f} s, of them {shards:.1f} s for the shards; --dry-run says {estimate / 1e6:.0f} MB)",
                flush=True,
            )
            if size == args.compared:
                compare(source, target, folder / "mlx-lm", args.repeats)
            shutil.rmtree(source)
            shutil.rmtree(target)
        print(f"largest peak / smallest: {max(peaks.values()) / min(peaks.values()):.3f}")


def compare(source, target, other, repeats):
    """Run the bare loop, ours and mlx_lm.convert in turn `repeats` times; print medians and, of each turn, ratios."""
    turns = []
    for _ in range(repeats):
        loop = bare(source)[0]
        whole, shards, peak, _ = ours(source, target)
        other_whole, other_peak = theirs(source, other)
        shutil.rmtree(other)
        turns.append((loop, shards, whole, other_whole, peak, other_peak))
    loop, shards, whole, other_whole, peak, other_peak = (
        statistics.median(column) for column in zip(*turns, strict=True)
    )
    print(f"  bare loop {loop:.1f} s; ours {shards:.1f} s for the shards, {whole:.1f} s for the whole command")
    print(
        f"  mlx_lm.convert: {other_whole:.1f} s, peak {other_peak / 1e6:.0f} MB, {other_peak / peak:.1f} times ours"
    )
    print(f"  shards / bare loop: {spread(turn[1] / turn[0] for turn in turns)}")
    print(f"  whole command / bare loop: {spread(turn[2] / turn[0] for turn in turns)}")
    print(f"  whole command / mlx_lm.convert: {spread(turn[2] / turn[3] for turn in turns)}")


def spread(ratios):
    """The median of ratios, and the least and the largest of them, in words."""
    ratios = sorted(ratios)
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


if __name__ == "__main__":
    main()
