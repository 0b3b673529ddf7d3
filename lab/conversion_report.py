"""What people are told of a conversion: the plan before it, the result after it, and whether files are still what they were."""

import os
import shutil
from pathlib import Path

from lab import building, cache, checkpoints, places
from lab.building import gigabytes
from lab.cli import CheckFailed, LabError, read_json
from lab.conversion_plan import cores
from lab.hashing import Hashing
from lab.headers import shown
from lab.progress import progress


def print_plan(plan, args):
    """Print architecture, tensors, bytes, memory and disk of a Plan, and whether this machine has them."""
    print_source(plan.model.family, len(plan.read), plan.model.left, args.hf_path)
    for line in plan.model.folded:
        print(f"  folded: {line}")
    print_ends(plan.model.ends.ids, plan.model.ends.said)
    print(f"reads:  {gigabytes(plan.source_bytes)} in {in_shards(plan.identities)}")
    bits = plan.output_bytes * 8 / plan.parameters
    print(
        f"writes: {gigabytes(plan.output_bytes)} in {in_shards(plan.shards)} to {args.mlx_path}, {bits:.2f} bits per weight"
    )
    if args.quantize:
        print_whole([tensor for step in plan.steps for tensor in step.outputs], args.q_group_size)
    print(f"  mlx-lm's {plan.config['model_type']}, {plan.parameters:,} parameters")
    memory = physical_memory()
    print(f"memory: {verdict(plan.peak_memory(cores()), memory)} to convert")
    print(f"  {verdict(plan.output_bytes, memory)} for the weights to run it on Metal or CUDA, as they are")
    print(f"  {verdict(plan.parameters * 4, memory)} to run it on a CPU, in float32")
    print_disk(plan, args)


def print_disk(plan, args):
    """Print the disk that the result needs, and what is still to be downloaded: on the same disk, or on another one."""
    source, place = plan.source, existing(args.mlx_path)
    download, shared = plan.to_download(plan.shards, args.consume_source), places.on_one_disk(source.folder, place)
    partial = places.partial_of(places.resolved(args.mlx_path))
    held = sum(path.stat().st_size for path in partial.glob("*.safetensors"))  # kept, or removed first of all
    rest = plan.output_bytes * building.FREE_SHARE - held
    needed = max(0, rest) + (download if shared else 0)
    print(f"disk:   {verdict(needed, shutil.disk_usage(place).free, 'free')}")
    if not download:
        return
    free = shutil.disk_usage(source.folder).free
    where = "of them" if shared else f"at {source.folder}: {verdict(download, free, 'free')}"
    how = "what one shard needs" if args.consume_source else "less with --consume-source: what one shard needs"
    print(f"  {gigabytes(download)} {where}, to download ({how})")


def print_place(target, force):
    """Print what lies where the result is to come: another result, or what an unfinished run has left."""
    try:
        places.refuse_existing(target, force)
    except LabError as error:
        print(f"place:  {error}")
    if not os.access(existing(target), os.W_OK | os.X_OK):
        print(f"place:  {existing(target)} cannot be written; choose another folder")
    if (places.partial_of(target) / places.PLAN).is_file():
        print(f"place:  {places.partial_of(target)} is unfinished; the same settings go on with it and need less")


def print_source(family, tensors, left, hf_path):
    """Print what of the source is taken and what is left out."""
    parts = ", ".join(f"{count} of the {what}" for what, count in left.items()) or "none"
    print(f"{hf_path}: {family}, {tensors} tensors taken, {sum(left.values())} left out ({parts})")


def print_ends(ids, said):
    """Print the end tokens of the result, and which of them the source did not name."""
    print(f"  ends answers at {', '.join(map(str, ids)) or 'no token'}{''.join(f'; {line}' for line in said)}")


def print_whole(tensors, group):
    """Print how many matrices of a quantized result are not quantized, which explains its bits per weight."""
    kept = [tensor for tensor in tensors if tensor.name.endswith(".weight") and tensor.dtype != "U32"]
    if count := sum(len(tensor.shape) == 2 for tensor in kept):
        print(f"  {count} matrices whose rows are no multiple of the group of {group} stay as they are")


def print_summary(folder):
    """Print what a conversion's summary.json says, for people."""
    results = read_json(Path(folder) / places.SUMMARY, "convert again")
    print_source(results["family"], results["tensors"], results["dropped_parts"], results["flags"]["hf_path"])
    for line in results["folded"]:
        print(f"  folded: {line}")
    print_ends(results["end_tokens"]["ids"], results["end_tokens"]["said"])
    sizes = f"{results['source_bytes'] / 1e6:,.1f} MB -> {results['output_bytes'] / 1e6:,.1f} MB"
    weights = f"{results['bits_per_weight']:.2f} bits per weight"
    print(f"{folder}: {sizes}, {weights}, mlx-lm's {results['architecture']}")
    if results["flags"]["quantize"]:
        print_whole(checkpoints.read_checkpoint(folder).values(), results["flags"]["q_group_size"])
    checked = f"{results['tensors_checked']} tensors compared with the source"
    print(f"check: {checked}; first tokens after {results['prompt']!r}: {results['answer']!r}")


def verify(folder, hf_path=None):
    """Hash the files of a converted model, and its source's shards where they are there, against summary.json.

    Raises CheckFailed that lists every file that is missing, changed or not named there.
    """
    summary = read_json(Path(folder) / places.SUMMARY, "name a folder that convert_hyperclova.py wrote")
    wanted, shards, source = recorded(summary, folder)
    if hf_path is not None and not any(os.path.isfile(Path(hf_path) / name) for name in shards):
        what = "none of the source's files is in it" if os.path.isdir(hf_path) else "no such folder"
        raise LabError(f"--hf-path {hf_path}: {what}; name the source's folder, or leave it out")
    source = Path(hf_path or source)
    faults = [f"{fault}; convert again" for fault in compare(Path(folder), wanted, "result")]
    present = {path.name for path in Path(folder).iterdir() if not path.name.startswith(".")}
    extra = present - {*wanted, places.SUMMARY, places.PLAN, places.JOURNAL}
    faults += [f"{folder}/{shown(name)}: not in {places.SUMMARY}; remove it" for name in sorted(extra)]
    print(f"{folder}: {len(wanted)} files hashed")
    there = {name: digest for name, digest in shards.items() if (source / name).is_file()}
    remedy = "download it again, or convert again if it was changed on purpose"
    faults += [f"{fault}; {remedy}" for fault in compare(source, there, "source")]
    absent = f", {len(shards) - len(there)} not there" if len(there) < len(shards) else ""
    print(f"{source}: {len(there)} of {len(shards)} source files hashed{absent}")
    if faults:
        raise CheckFailed("; ".join(faults))
    print("all that is there is as written" if absent else "all as written")


def recorded(summary, folder):
    """({file: SHA-256} of the result, the same of the source, the source's folder) of a summary. Raises LabError."""
    try:
        source = summary["source"]
        wanted = {name: facts["sha256"] for name, facts in summary["files"].items()}
        given = source_hashes(source)
        if all(Path(name).name == name for name in (*wanted, *given)):
            return wanted, given, str(source["folder"])
    except (KeyError, TypeError, AttributeError):
        pass
    raise LabError(f"{folder}/{places.SUMMARY}: holds no hashes of files; convert the model again")


def source_hashes(source):
    """{file: SHA-256} of all that was read of the source, by what a summary says of it."""
    others = source["files"] if "files" in source else {"config.json": source["config"]}  # alone before 2026-11-28
    return {**source["shards"], **others}


def compare(folder, digests, title):
    """The faults of files that should have the SHA-256 given, {name: digest}."""
    names = sorted(digests)
    with Hashing(cores()) as pool:
        found = pool.map(lambda name: fault_of(folder / name, digests[name], pool.sha256), names)
        pairs = zip(progress(names, f"hashing the {title}"), found, strict=True)
        return [f"{folder}/{shown(name)}: {fault}" for name, fault in pairs if fault]


def fault_of(path, digest, sha256):
    """What is wrong with a file that should have the SHA-256 `digest`, or None; `sha256` takes a path."""
    try:
        if not path.is_file():
            return "missing"
        cache.refuse_outside(path)
        return None if sha256(path) == digest else "changed"
    except LabError:
        return f"a link that leads out of its folder, to {os.path.realpath(path)}"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def in_shards(names):
    """How many files, in words."""
    return f"{len(names)} shard{'s' if len(names) > 1 else ''}"


def verdict(needed, there, what="there"):
    """How much is needed, how much there is, and whether that is enough, in words."""
    fits = "fits" if needed <= there else "DOES NOT FIT"
    return f"{gigabytes(needed)} needed, {gigabytes(there)} {what}: {fits}"


def physical_memory():
    """This machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def existing(target):
    """The folder that is there already of those that `target` is or will be in."""
    return next(path for path in Path(target).resolve().parents if path.is_dir())
