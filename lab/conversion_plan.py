"""What a conversion reads and writes, worked out from headers alone: no tensor is touched, no MLX is loaded."""

import hashlib
import json
import os
import platform
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from lab import building, carried_files, checkpoints, hyperclovax, turn_ends
from lab.checkpoints import Tensor
from lab.cli import LabError, sha256, versions
from lab.places import MODEL_CARD
from lab.shards import WAITING

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
# Of a source tensor that are in memory at once, in each lane. Larger chunks take new memory from the kernel each time, which
# clears it first: with 16 MB its time was twice that with 4 MB.
CHUNK_BYTES = 4 << 20
# What bench/convert.py measured on a CPU: Python with MLX; what a lane holds of its chunk (read ahead, cast, packed), in
# chunks; and Python with tokenizer and stock model, for the last check.
START_BYTES, CHUNKS_A_LANE, CHECK_BYTES = 80e6, 7, 180e6


@dataclass(frozen=True)
class Step:
    """A Recipe and the Tensors written for it, in the order of the file: the weight, or packed, scales, biases."""

    recipe: hyperclovax.Recipe
    outputs: tuple

    @property
    def quantized(self):
        return len(self.outputs) == 3

    @property
    def source_bytes(self):
        return sum(piece.tensor.nbytes for piece in self.recipe.pieces)


@dataclass(frozen=True)
class Plan:
    """A conversion: `shards` is {file name: [Step]}, in the order in which the source is read.

    `source` is a lab.hub.Source with its `tensors`; `identities` tells of each shard that is read what changes with its content;
    `beside` is {name: SHA-256} of the other files that are read.
    """

    source: object
    tensors: dict
    model: hyperclovax.TextModel
    config: dict
    shards: dict
    identities: dict
    beside: dict

    @cached_property
    def steps(self):
        return [step for steps in self.shards.values() for step in steps]

    @cached_property
    def read(self):
        """The source's Tensors that are read, {name: Tensor}."""
        return {piece.tensor.name: piece.tensor for step in self.steps for piece in step.recipe.pieces}

    @property
    def source_bytes(self):
        return sum(tensor.nbytes for tensor in self.read.values())

    @property
    def output_bytes(self):
        return sum(bytes_of(steps) for steps in self.shards.values())

    @property
    def parameters(self):
        return sum(_size(step.recipe.shape) for step in self.steps)

    def index(self):
        """The content of model.safetensors.index.json."""
        where = {tensor.name: name for name, steps in self.shards.items() for tensor in outputs_of(steps)}
        metadata = {"total_size": self.output_bytes, "total_parameters": self.parameters}
        return {"metadata": metadata, "weight_map": dict(sorted(where.items()))}

    def peak_memory(self, lanes):
        """An estimate of the peak resident memory in bytes, with `lanes` chunks at a time.

        It is that of the chunks, or that of the last check, which holds two layers, the embeddings and the head.
        """
        held = max(sum(tensor.nbytes for tensor in step.outputs[1:]) for step in self.steps)
        largest = max(min(CHUNK_BYTES, tensor.nbytes) for tensor in self.read.values())
        parts = Counter()
        for step in self.steps:
            layer = re.match(r"model\.layers\.\d+\.", step.recipe.name)
            parts[layer[0] if layer else ""] += bytes_of([step])
        layer = max((nbytes for name, nbytes in parts.items() if name), default=0)
        behind = min(WAITING, self.output_bytes)
        shard = START_BYTES + lanes * CHUNKS_A_LANE * largest + behind + held
        return max(shard, CHECK_BYTES + 2 * layer + parts[""])

    def to_download(self, shards, consume):
        """The bytes that a hub has still to send for `shards`, {file name: [Step]}; with `consume`, the most that lie there at once."""
        groups = [set(sources_of(steps)) for steps in shards.values()]
        groups = groups if consume else [set().union(*groups)]
        missing = {name for name in self.identities if not (self.source.folder / name).is_file()}
        sizes = (sum(self.source.sizes.get(name, 0) for name in group & missing) for group in groups)
        return max(sizes, default=0)

    def record(self):
        """The plan as JSON, for the folder in the making: what a later run needs to go on, and to see what differs."""
        table = [[*_facts(tensor), tensor.shard.name, tensor.offset] for tensor in self.tensors.values()]
        steps = [[_facts(tensor) for tensor in step.outputs] + _origin(step.recipe) for step in self.steps]
        content = {
            "config": self.config,
            "identities": self.identities,
            "steps": hashlib.sha256(json.dumps([list(self.shards), steps]).encode()).hexdigest(),
            "made_with": {**versions(), "machine": platform.machine(), "system": platform.system()},
        }
        raw = json.dumps(content, sort_keys=True).encode()
        return {**content, "fingerprint": hashlib.sha256(raw).hexdigest(), "tensors": table}


def differences(old, new):
    """In words, what tells two records of plans apart."""
    if old["fingerprint"] == new["fingerprint"]:
        return []
    changed = [pair for part in ("config", "made_with") for pair in _changed(old, new, part)]
    copy = "quantization_config"  # the same as quantization, for others than mlx-lm
    found = [f"{key} was {_said(was)}, is now {_said(now)}" for key, was, now in changed if key != copy]
    found += [f"{shard} has changed" for shard, _, _ in _changed(old, new, "identities")]
    return found or ["the tensors or their numbers are others"]


def _said(value):
    """A setting's value in words; of quantization what the flags --q-bits and --q-group-size say."""
    if isinstance(value, dict) and {"bits", "group_size"} <= value.keys():
        return f"{value['bits']} bit in groups of {value['group_size']}"
    return "none" if value is None else str(value)


def same_shards(old, new):
    """Whether two records of plans make the same shards, to the byte: what else config.json says is written after them."""
    return all(old.get(part) == new[part] for part in ("steps", "identities", "made_with"))


def _changed(old, new, part):
    known = old.get(part, {})
    keys = dict.fromkeys([*known, *new[part]] if known else ())
    values = [(key, known.get(key), new[part].get(key)) for key in keys]
    return [value for value in values if value[1] != value[2]]


def make_plan(source, args, consumed=None):
    """The Plan for the checkpoint `source`. Raises LabError for whatever does not fit.

    `consumed` is a lab.consumed.Consumed: what an unfinished run knew of the shards that it has deleted.
    """
    before = {
        path.name: stat_of(path) for path in source.folder.glob("*.safetensors")
    }  # the header is read after it
    tensors = consumed.tensors(source) if consumed else source.tensors()
    path = source.folder / "config.json"
    model = hyperclovax.text_model(hyperclovax.read_config(path), tensors, path)
    carried = checkpoints.carried_files(source.folder)
    files = carried_files.check(carried, source.folder)
    carried_files.check_ids(model.config, path)
    model = turn_ends.settled(model, files)
    stored = {code: name for name, code in DTYPES.items()}[model.dtype]
    config = {**model.config, "torch_dtype": args.dtype or stored}
    if args.quantize:
        quantization = {"group_size": args.q_group_size, "bits": args.q_bits, "mode": "affine"}
        config |= {"quantization": quantization, "quantization_config": quantization}
    steps = [Step(recipe, tuple(made_of(recipe, args))) for recipe in model.recipes]
    shards = {piece.tensor.shard for recipe in model.recipes for piece in recipe.pieces}
    known = consumed.identities if consumed else {}
    given = {**before, **source.digests, **known}
    if missing := sorted(path.name for path in shards if path.name not in given):  # an unfinished run knew of them
        if source.repository:
            remedy = "connect (and unset HF_HUB_OFFLINE), then run the same command again"
        else:
            remedy = checkpoints.AGAIN
        raise LabError(f"{source.folder}: {', '.join(missing)} not there, and still to be converted; {remedy}")
    found = {path.name: given[path.name] for path in sorted(shards)}
    others = [source.folder / name for name in ("config.json", checkpoints.INDEX, MODEL_CARD)]
    beside = {file.name: sha256(file) for file in (*others, *carried) if file.is_file()}
    return Plan(source, tensors, model, config, in_shards(steps), found, beside)


def made_of(recipe, args):
    """The Tensors that a Recipe becomes: itself, or packed weight, scales, biases.

    As in mlx_lm.convert, every matrix is quantized whose last dimension the group divides (embeddings, too).
    """
    dtype = DTYPES.get(args.dtype, recipe.pieces[0].tensor.dtype)
    if not args.quantize or len(recipe.shape) != 2 or recipe.shape[1] % args.q_group_size:
        return [Tensor(recipe.name, dtype, recipe.shape)]
    rows, columns = recipe.shape
    packed = Tensor(recipe.name, "U32", (rows, columns * args.q_bits // 32))
    stem, groups = recipe.name.removesuffix("weight"), (rows, columns // args.q_group_size)
    return [packed, Tensor(f"{stem}scales", dtype, groups), Tensor(f"{stem}biases", dtype, groups)]


def in_shards(steps):
    """{file name as mlx-lm gives it: [Step]}, each file at most SHARD_BYTES, or one step that is larger."""
    shards, filled = [], 0
    for step in steps:
        nbytes = bytes_of([step])
        if not shards or filled + nbytes > building.SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(step)
        filled += nbytes
    count = len(shards)
    names = [f"model-{place:05d}-of-{count:05d}.safetensors" for place in range(1, count + 1)]
    return dict(zip(names if count > 1 else [checkpoints.SINGLE], shards, strict=True))


def outputs_of(steps):
    """The Tensors that `steps` write."""
    return [tensor for step in steps for tensor in step.outputs]


def bytes_of(steps):
    """How many bytes of tensors `steps` write."""
    return sum(tensor.nbytes for tensor in outputs_of(steps))


def sources_of(steps):
    """The names of the source's shards that `steps` read, in order."""
    return list(dict.fromkeys(piece.tensor.shard.name for step in steps for piece in step.recipe.pieces))


def stat_of(path):
    """[size in bytes, time of change in ns] of a file: what changes with its content."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns]


def cores():
    """How many cores this process may use. MLX computes a stream of operations on one of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _facts(tensor):
    return [tensor.name, tensor.dtype, list(tensor.shape)]


def _origin(recipe):
    return [[*_facts(p.tensor), p.tensor.shard.name, p.tensor.offset, p.factor] for p in recipe.pieces]


def _size(shape):
    return Tensor("", "U8", tuple(shape)).size
