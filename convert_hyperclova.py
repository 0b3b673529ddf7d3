"""Make an 8-bit text model for mlx-lm out of HyperCLOVA X SEED Think:

  python convert_hyperclova.py --hf-path models/HyperCLOVAX-SEED-Think-32B

Takes the text backbone out of the vision-language checkpoint, quantizes it one tensor at a time, and writes
it as stock `llama` with tokenizer and chat template, so that plain `mlx_lm.load` reads it. The result is read
back, compared with the source and asked for a few tokens; it appears whole, with summary.json, or not at all.

Exit codes: 0 converted, 1 bad input, 2 bad usage, 3 the result failed its check.
"""

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from lab import building, checkpoints, hub, hyperclovax
from lab.checkpoints import Tensor
from lab.cli import LabError, finish, write_atomically, write_json, write_summary

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
HASHED_WHOLE = 4e9  # bytes; hashing 66 GB would take longer than to convert them


@dataclass(frozen=True)
class Plan:
    """What is read and written: `steps` are (source Tensor, [Tensors made of it]), in reading order."""

    source: Path
    config: dict
    steps: list
    left: dict

    @property
    def source_bytes(self):
        return sum(tensor.nbytes for tensor, _ in self.steps)

    @property
    def output_bytes(self):
        return sum(tensor.nbytes for _, made in self.steps for tensor in made)

    @property
    def parameters(self):
        return sum(tensor.size for tensor, _ in self.steps)


def parse_args(argv):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    add = parser.add_argument
    add("--hf-path", default=str(hub.SOURCE_32B), help="local folder or hub id (%(default)s)")
    add("--mlx-path", type=Path, help="where to (models/<name of the checkpoint>-Text-8bit)")
    switch = {"action": argparse.BooleanOptionalAction, "default": True}
    add("-q", "--quantize", help="quantize (the default), or keep every weight as it is", **switch)
    add("--q-bits", type=int, default=8, choices=(2, 3, 4, 5, 6, 8), help="bits a weight (%(default)s)")
    text = "weights that share a scale (%(default)s)"
    add("--q-group-size", type=int, default=64, choices=(32, 64, 128), help=text)
    add("--dtype", choices=DTYPES, help="of scales, and of what is not quantized (as in the source)")
    add("--force", action="store_true", help="overwrite a result that is there")
    add("--output", type=Path, help="where a copy of <mlx-path>/summary.json goes")
    args = parser.parse_args(argv)
    args.mlx_path = args.mlx_path or Path("models") / f"{Path(args.hf_path).name}-Text-8bit"
    return args


def make_plan(source, args):
    """The Plan for the checkpoint in the folder `source`. Raises LabError for whatever does not fit."""
    config = hyperclovax.read_config(source / "config.json")
    tensors = checkpoints.read_checkpoint(source)
    config = hyperclovax.llama_config(config, tensors, source / "config.json")
    taken, left = hyperclovax.match_tensors(tensors, config, source)
    carried = checkpoints.carried_files(source)
    if not any(path.name in ("tokenizer.json", "tokenizer.model", "vocab.json") for path in carried):
        raise LabError(f"{source}: no tokenizer.json in it; {checkpoints.AGAIN}")
    stored = {code: name for name, code in DTYPES.items()}[next(iter(taken.values())).dtype]
    config["torch_dtype"] = args.dtype or stored
    if args.quantize:
        quantization = {"group_size": args.q_group_size, "bits": args.q_bits, "mode": "affine"}
        config |= {"quantization": quantization, "quantization_config": quantization}
    steps = [(tensor, made_of(name, tensor, args)) for name, tensor in taken.items()]
    return Plan(source, config, steps, left)


def made_of(name, tensor, args):
    """The Tensors that a source Tensor becomes as llama's `name`: itself, or packed weight, scales, biases.

    As in mlx_lm.convert, every matrix is quantized whose last dimension the group divides (embeddings, too).
    """
    dtype = DTYPES.get(args.dtype, tensor.dtype)
    if not args.quantize or len(tensor.shape) != 2 or tensor.shape[1] % args.q_group_size:
        return [Tensor(name, dtype, tensor.shape)]
    rows, columns = tensor.shape
    packed = Tensor(name, "U32", (rows, columns * args.q_bits // 32))
    stem, groups = name.removesuffix("weight"), (rows, columns // args.q_group_size)
    return [packed, Tensor(f"{stem}scales", dtype, groups), Tensor(f"{stem}biases", dtype, groups)]


def inputs_of(source):
    """(files for the summary's hashes, {shard: hash of its header}, in words what was hashed)."""
    shards = sorted(source.glob("*.safetensors"))
    if sum(path.stat().st_size for path in shards) <= HASHED_WHOLE:
        return [source], {}, "the whole folder"
    small = [path for path in (source / "config.json", source / checkpoints.INDEX) if path.is_file()]
    headers = {path.name: checkpoints.header_sha256(path) for path in shards}
    return small, headers, "config.json, the index and the shards' headers; not the values, for their size"


def build(folder, plan, args):
    """Write the converted model into `folder`, check it, and write its summary last; returns the results."""
    from lab import conversion

    shards = building.plan_shards(made for _, made in plan.steps)
    building.write_checkpoint(folder, shards, conversion.stream(plan, args), plan.parameters)
    write_json(folder / "config.json", plan.config)
    for path in checkpoints.carried_files(plan.source):
        shutil.copyfile(path, folder / path.name)
    inputs, headers, hashed = inputs_of(plan.source)
    results = {
        "architecture": plan.config["model_type"],
        "tensors": len(plan.steps),
        "dropped": sum(plan.left.values()),
        "dropped_parts": plan.left,
        "parameters": plan.parameters,
        "source_bytes": plan.source_bytes,
        "output_bytes": plan.output_bytes,
        "bits_per_weight": plan.output_bytes * 8 / plan.parameters,
        "hashed": hashed,
        "shard_headers": headers,
        "tensors_checked": conversion.check_samples(folder, plan, args),
        "prompt": conversion.PROMPT,
        "answer": conversion.check_answer(folder, plan),
    }
    write_summary(folder / "summary.json", args, inputs, results)
    return results


def report(results, args):
    """Print what was done, for people."""
    left = ", ".join(f"{count} of the {what}" for what, count in results["dropped_parts"].items()) or "none"
    print(f"{args.hf_path}: {results['tensors']} text tensors taken, {results['dropped']} left out ({left})")
    sizes = f"{results['source_bytes'] / 1e6:,.1f} MB -> {results['output_bytes'] / 1e6:,.1f} MB"
    weights = f"{results['bits_per_weight']:.2f} bits per weight"
    print(f"{args.mlx_path}: {sizes}, {weights}, mlx-lm's {results['architecture']}")
    said = repr(results["answer"])
    if results["answer"] is None:
        said = "left out, the model is larger than this machine's memory"
    print(f"check: {results['tensors_checked']} tensors compared with the source; first tokens: {said}")


def main(argv=None):
    args = parse_args(argv)
    building.refuse_target(args.mlx_path, args.hf_path, args.force)
    plan = make_plan(hub.find_checkpoint(args.hf_path), args)
    with building.building(args.mlx_path, plan.output_bytes) as folder:
        from lab import device  # before everything else of MLX

        print(device.describe(), flush=True)
        results = build(folder, plan, args)
    if args.output:
        write_atomically(args.output, (args.mlx_path / "summary.json").read_bytes())
    report(results, args)
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
