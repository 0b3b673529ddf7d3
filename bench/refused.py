"""What convert_hyperclova.py refuses, and what it says:  python bench/refused.py

Spoils a small checkpoint in one way after another, in a temporary folder, makes the command's plan of it, and prints a
Markdown table of inputs and messages, as it stands in docs/RESULTS.md: remedies that come often are letters, of long
lists the beginning. No model is loaded.
"""

import json
import os
import struct
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import convert_hyperclova  # noqa: E402  (after the path)
from lab import checkpoints, conversion_plan, headers, hub  # noqa: E402
from lab.cli import LabError  # noqa: E402

STOCK = "only what mlx-lm's stock llama or glm4 computes is converted: mend the file or use another checkpoint"
SHORT = {headers.REPLACE: "R", headers.AGAIN: "D", STOCK: "S", checkpoints.INDEX: "INDEX"}
LISTED, SHOWN = 8, 3  # parts of a message; of more than so many, so many are shown

ONE, TWO, INDEX = "model-1.safetensors", "model-2.safetensors", checkpoints.INDEX
TEXT = {
    "model_type": "hyperclovax",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 4,
    "intermediate_size": 8,
    "vocab_size": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e7,
    "tie_word_embeddings": True,
}
LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
LINEARS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")


def tensors():
    """{name: shape} of the small checkpoint."""
    shapes = {"model.embed_tokens.weight": [16, 8], "model.norm.weight": [8]}
    shapes |= {f"model.layers.0.{name}.weight": [8, 8] for name in LINEARS}
    return shapes | {f"model.layers.0.{name}.weight": [8] for name in NORMS}


def write(folder, shapes=None, config=None, **entries):
    """Write the checkpoint, its config and index; `entries` take the place of a tensor's entry in the header."""
    halves = list((shapes or tensors()).items())
    where = {}
    for file, part in ((ONE, halves[:5]), (TWO, halves[5:])):
        header, position = {}, 0
        for name, shape in part:
            size = 2 * (shape[0] * shape[1] if len(shape) == 2 else shape[0])
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, position + size]}
            header[name] |= entries.get(name, {})
            position += size
            where[name] = file
        write_raw(folder / file, json.dumps(header).encode(), position)
    (folder / INDEX).write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({**TEXT, **(config or {})}), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")


def write_raw(path, header, size):
    """Write a header and so many zeros."""
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def header(raw, size=8):
    """A spoiler that gives the first shard another header."""
    return lambda folder: write_raw(
        folder / ONE, raw if isinstance(raw, bytes) else json.dumps(raw).encode(), size
    )


def entry(shape, begin, end, dtype="F32"):
    """A tensor's entry in a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def index(where):
    """A spoiler that gives the checkpoint another index."""
    return lambda folder: (folder / INDEX).write_text(json.dumps({"weight_map": where}), encoding="utf-8")


def cut(*names, by=1):
    """A spoiler that takes bytes off the end of files."""
    return lambda folder: [os.truncate(folder / name, (folder / name).stat().st_size - by) for name in names]


def link(name, target):
    """A spoiler that puts a link in the place of a file."""

    def spoil(folder):
        (folder / name).unlink()
        (folder.parent / "secret").write_text("s", encoding="utf-8")
        (folder / name).symlink_to(target)

    return spoil


def large(folder):
    """A header of 100 MB, all holes."""
    (folder / ONE).write_bytes(struct.pack("<Q", 100_000_000))
    os.truncate(folder / ONE, 200_000_000)


def without(name):
    """A spoiler that leaves a tensor out."""
    return lambda folder: write(folder, {key: shape for key, shape in tensors().items() if key != name})


def config(**changes):
    """A spoiler that changes the config."""
    return lambda folder: write(folder, config=changes)


def instead(*names):
    """A spoiler that puts other files in the place of index and shards."""

    def spoil(folder):
        for name in (ONE, TWO, INDEX):
            (folder / name).unlink()
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()

    return spoil


CASES = {
    "empty shard": lambda folder: (folder / ONE).write_bytes(b""),
    "truncated shards": cut(ONE, TWO),
    "shard too long": lambda folder: (folder / ONE).write_bytes((folder / ONE).read_bytes() + b"x"),
    "length of 2^63": lambda folder: (folder / ONE).write_bytes(struct.pack("<Q", 1 << 63) + b"{}"),
    "git-lfs pointer": lambda folder: (folder / ONE).write_text("version https://git-lfs.github.com/spec/v1\n"),
    "missing shards": lambda folder: [(folder / name).unlink() for name in (ONE, TWO)],
    "additional shard": lambda folder: (folder / "model-3.safetensors").touch(),
    "header of 100 MB": large,
    "header is no JSON": header(b"not json"),
    "header not UTF-8": header(b'{"\xff":0}'),
    "header nested 50,000 deep": header(b'{"a":' * 50000),
    "NaN in a header": header(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}'),
    "a name twice": header(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}'),
    "unknown number format": header({"a": entry([2], 0, 8, "F4")}),
    "boolean extent": header({"a": entry([True], 0, 4)}),
    "2^124 elements": header({"a": entry([1 << 62, 1 << 62], 0, 8)}),
    "bytes do not fit the shape": header({"a": entry([3], 0, 8)}),
    "gap": header({"a": entry([1], 0, 4), "b": entry([1], 5, 9)}, 9),
    "overlap": header({"a": entry([1], 0, 4), "b": entry([1], 3, 7)}, 7),
    "control characters in a name": header({"a\nerror: \x1b[2J": entry([1], 0, 5)}, 5),
    "index: absolute": index({"a": "/etc/passwd.safetensors"}),
    "index: climbs out": index({"a": "../x.safetensors"}),
    "index: other tensors": index({"a": ONE, "c": TWO}),
    "shard is a link out": link(ONE, "../secret"),
    "tokenizer.json is a link out": link("tokenizer.json", "../secret"),
    "config.json is a link out": lambda folder: (
        (folder / "config.json").rename(folder.parent / "config.json"),
        (folder / "config.json").symlink_to("../config.json"),
    ),
    "chat_template.jinja leads nowhere": lambda folder: (folder / "chat_template.jinja").symlink_to("nowhere"),
    "model.safetensors is a pipe": lambda folder: (instead()(folder), os.mkfifo(folder / "model.safetensors")),
    "only pytorch_model.bin": instead("pytorch_model.bin"),
    "shards without their index": instead("model-00001-of-00002.safetensors"),
    "the checkpoint lies deeper": instead("text/model.safetensors"),
    "missing tensor": without("model.layers.0.mlp.up_proj.weight"),
    "unexpected and mis-shaped tensors": lambda folder: write(
        folder, {**tensors(), "model.norm.weight": [9], "model.extra.weight": [8]}
    ),
    "whole numbers for a weight": lambda folder: write(folder, **{"model.norm.weight": {"dtype": "I16"}}),
    "post norms promised, not there": config(use_post_norm=True),
    "unknown rope": config(rope_scaling={"type": "yarn", "factor": 4}),
    "multiplier of 0": config(residual_multiplier=0),
    "post norms and biases": lambda folder: write(
        folder,
        {**tensors(), **{f"model.layers.0.post_norm{place}.weight": [8] for place in (1, 2)}},
        {"attention_bias": True},
    ),
    "another family": config(model_type="qwen3"),
    "quantized already": config(quantization_config={"bits": 4}),
    "sliding windows": config(layer_types=["sliding_attention"]),
}


def refusal(spoil):
    """What is said of the checkpoint that `spoil` has spoilt, without its folder's path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "checkpoint"
        folder.mkdir()
        write(folder)
        spoil(folder)
        try:
            args = convert_hyperclova.parse_args(["--hf-path", str(folder), "--q-group-size", "32"])
            conversion_plan.make_plan(hub.find_source(folder), args)
        except LabError as error:
            text = str(error).replace(f"{folder}/", "").replace(str(folder), "checkpoint")
            return shortened(text.replace(os.path.realpath(name), "/tmp").replace(name, "/tmp"))
    return "ACCEPTED"


def shortened(text):
    """A message with letters for what comes often, and the beginning of a long list."""
    for long, short in SHORT.items():
        text = text.replace(long, short)
    *parts, remedy = text.split("; ")
    if len(parts) > LISTED:
        parts = [*parts[:SHOWN], f"... ({len(parts)} in all)"]
    return "; ".join([*parts, remedy])


def main():
    print("| input | message |\n|---|---|")
    for title, spoil in CASES.items():
        print(f"| {title} | {refusal(spoil)} |")


if __name__ == "__main__":
    main()
