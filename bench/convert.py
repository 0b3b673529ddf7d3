"""Memory and speed of convert_hyperclova.py beside mlx_lm.convert and a bare loop:  python bench/convert.py

Makes random checkpoints of 1, 4 and 12 GB (the same tensor shapes, more layers; 35 GB of disk for a while), converts
each in a process of its own, and prints the peak resident memory of each. On the one of 4 GB two others run in turn
with ours: `mlx_lm.convert`, and a bare loop that loads each tensor and calls mx.quantize, nothing more. Prints ratios.
"""

import argparse
import json
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

HIDDEN, INNER, HEADS, KEYS, WIDTH, VOCABULARY = 2048, 8192, 16, 8, 128, 32000
SHARD_BYTES = 1 << 30
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEYS,
    "head_dim": WIDTH,
    "vocab_size": VOCABULARY,
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


def layer_shapes():
    """{name in a layer: shape} of a bfloat16 llama layer, 126 MB."""
    keys = KEYS * WIDTH
    return {
        "input_layernorm": (HIDDEN,),
        "self_attn.q_proj": (HEADS * WIDTH, HIDDEN),
        "self_attn.k_proj": (keys, HIDDEN),
        "self_attn.v_proj": (keys, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HEADS * WIDTH),
        "post_attention_layernorm": (HIDDEN,),
        "mlp.gate_proj": (INNER, HIDDEN),
        "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER),
    }


def shapes(layers):
    """{tensor name: shape} of a llama with so many layers."""
    found = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for number in range(layers):
        found |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer_shapes().items()}
    return {**found, "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def make_checkpoint(folder, gigabytes):
    """Write a random bfloat16 checkpoint of about so many GB, in shards of 1 GiB, with the embedded tokenizer."""
    nbytes = {name: 2 * int(np.prod(shape)) for name, shape in layer_shapes().items()}
    layers = max(1, round((gigabytes * 1e9 - 4 * VOCABULARY * HIDDEN) / sum(nbytes.values())))
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.02, 1 << 23).astype("<f4").view("<u4") >> 16  # to bfloat16
    noise = memoryview(noise.astype("<u2").tobytes())
    shards, filled = [[]], 0
    for name, shape in shapes(layers).items():
        size = 2 * int(np.prod(shape))
        if filled + size > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape, size))
        filled += size
    where = {}
    for place, shard in enumerate(shards, 1):
        file = f"model-{place:05d}-of-{len(shards):05d}.safetensors"
        where |= {name: file for name, _, _ in shard}
        write_shard(folder / file, shard, noise)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
    for name in TOKENIZER:
        shutil.copyfile(ROOT / "models" / "HyperCLOVAX-SEED-Think-Tiny" / name, folder / name)
    os.sync()  # or writing it would go on beside what is measured first
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def write_shard(path, tensors, noise):
    """Write [(name, shape, bytes)] filled with `noise`, over and over."""
    header, position = {}, 0
    for name, shape, size in tensors:
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    raw = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        while position:
            position -= file.write(noise[: min(position, len(noise))])


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
