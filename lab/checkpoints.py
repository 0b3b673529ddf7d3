"""Checkpoint folders, read: index and shards are held against each other, every fault is named before any work.

Plain Python on the headers (lab/headers.py); no tensor is touched here.
"""

import os
import re
import sys
from pathlib import Path

from lab import cache
from lab.cli import LabError
from lab.headers import (
    AGAIN,
    LIMIT,
    REPLACE,
    UNTRUE,
    Fault,
    Tensor,
    header_sha256,
    open_file,
    parse,
    read_shard,
    refuse_pointer,
    shown,
    strict_json,
)

__all__ = ["AGAIN", "Tensor", "header_sha256", "read_shard", "refuse_pointer"]  # of a single file, for importers

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
SHARDS = "model*.safetensors"
LISTED = 50  # faults of one kind in an error, then how many more there are
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".npz")  # how weights' files end, ours and others'
BEGINNING = 65536  # bytes of README.md or LICENSE that are looked at
# What travels with the weights, besides config.json.
CARRIED = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model"),
    *("chat_template.jinja", "generation_config.json", "LICENSE"),
)


def read_checkpoint(folder, absent=None):
    """The tensors of a checkpoint folder as {name: Tensor}, shard by shard, in the order of the bytes.

    `absent` is called with the names of shards that are not there and returns {name: (header, size of the file in
    bytes)}. Raises LabError, with file and remedy, that lists each missing, additional, broken, truncated or overlong
    shard, each git-lfs pointer and link that leads out; or what index and shards say differently.
    """
    folder = Path(folder)
    where, total = read_index(folder)
    shards = sorted(set(where.values())) if where else [SINGLE]
    known = _headers_of_absent(folder, shards, absent)
    found, faults = {}, _additional(folder, shards)
    for shard in shards:
        try:
            cache.refuse_outside(folder / shard)
            found[shard] = parse(*known[shard], folder / shard) if shard in known else read_shard(folder / shard)
        except Fault as fault:
            faults.append(Fault(fault.what, "choose another revision") if shard in known else fault)
    if faults:
        raise LabError(_together(faults))
    tensors = {tensor.name: tensor for shard in shards for tensor in found[shard]}
    if not tensors:
        raise LabError(f"{folder / SINGLE}: holds no tensors; {AGAIN}")
    _compare(folder, where, total, found)
    return tensors


def weight_map(folder):
    """The index of a checkpoint folder, {tensor name: file name}. Raises LabError for a file elsewhere."""
    if where := read_index(folder)[0]:
        return where
    raise LabError(f"{folder / INDEX}: no such file; {AGAIN}")


def shards_of(folder):
    """The names of the shards that a checkpoint folder's index names, sorted. Raises LabError as read_index."""
    return sorted(set((read_index(folder)[0] or {"": SINGLE}).values()))


def read_index(folder):
    """(the index {tensor name: file name}, total_size or None) of a checkpoint folder; (None, None) for none.

    Raises LabError where it is broken, or names what is no file beside it.
    """
    index = Path(folder) / INDEX
    if not os.path.lexists(index):
        return None, None
    content = read_strictly(index)
    where = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(where, dict) or not where:
        raise LabError(f'{index}: no "weight_map" of tensor names to file names; {REPLACE}')
    # A bare file name cannot be absolute, hold "..", or lead out of the folder.
    bare = re.compile(r"[^/\\:\x00-\x1f\x7f-\x9f\u2028\u2029]{1,200}\.safetensors")
    if outside := {shown(repr(file)) for file in where.values() if not bare.fullmatch(str(file))}:
        what = f"names what is no .safetensors file beside it: {'; '.join(_cut(sorted(outside)))}"
        raise LabError(f"{index}: {what}; {UNTRUE}")
    metadata = content.get("metadata", {})
    return where, metadata.get("total_size") if isinstance(metadata, dict) else None


def read_strictly(path):
    """The content of a JSON file beside the weights. Raises LabError for what is none, a link that leads out, ..."""
    cache.refuse_outside(path)
    with open_file(path) as file:
        raw = file.read(LIMIT + 1)
    try:
        if len(raw) > LIMIT:
            raise ValueError(f"more than {LIMIT} bytes")
        return strict_json(raw)
    except (ValueError, RecursionError) as error:
        raise LabError(f"{path}:{getattr(error, 'lineno', 1)}: not valid JSON ({error}); {REPLACE}") from error


def carried_files(folder):
    """The files of a checkpoint that travel with its weights. Raises LabError for a git-lfs pointer, a link out, no file."""
    paths = [folder / name for name in CARRIED if os.path.lexists(folder / name)]
    for path in paths:
        cache.refuse_outside(path)
        refuse_pointer(path)
    return paths


def licence_of(folder):
    """The licence that README.md's front matter names, else LICENSE's first line, else None. Raises for a link out."""
    readme, licence = (folder / name for name in ("README.md", "LICENSE"))
    front = re.match(r"---\n(.*?)\n---", _beginning(readme), re.DOTALL)
    named = (
        dict(re.findall(r"^(license|license_name): *['\"]?([^'\"\n]+?)['\"]? *$", front[1], re.M)) if front else {}
    )
    first = next((line.strip() for line in _beginning(licence).splitlines() if line.strip()), None)
    if named.get("license") == "other":  # which says that it is none of the usual ones
        del named["license"]
    found = named.get("license_name") or named.get("license") or first
    return shown(found) if found else None


def _beginning(path):
    if not os.path.lexists(path):
        return ""
    cache.refuse_outside(path)
    with open_file(path) as file:
        return file.read(BEGINNING).decode("utf-8", errors="replace").replace("\r\n", "\n")


def _headers_of_absent(folder, shards, absent):
    """{shard: (header, size of the file)} for what is not in `folder`, from `absent`, or LabError without it."""
    missing = [shard for shard in shards if not os.path.lexists(folder / shard)]
    if not missing or absent is not None:
        return absent(missing) if missing else {}
    if missing == [SINGLE]:
        raise LabError(f"{folder}: neither {INDEX} nor {SINGLE} in it; {_instead(folder)}")
    raise LabError(f"{folder / INDEX}: names files that are not there: {'; '.join(_cut(missing))}; {AGAIN}")


def _instead(folder):
    """The remedy for a folder without the two files, by what lies there instead of them."""
    deeper = sorted({path.parent for name in (INDEX, SINGLE) for path in folder.glob(f"*/{name}")})
    if len(deeper) == 1:
        return f"give the folder {shown(str(deeper[0]))}"
    if deeper:  # which of them is meant is for the user to know: others may be no HyperCLOVA X, or results
        names = "; ".join(_cut([shown(path.name) for path in deeper]))
        return f"give one of the folders inside it that hold a checkpoint: {names}"
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in WEIGHTS)
    if any(name.startswith("model-") and name.endswith(".safetensors") for name in names):
        return f"{INDEX} is missing: {AGAIN}"
    if names:
        return (
            f"there is only {'; '.join(_cut([shown(name) for name in names]))}: use the checkpoint that has them"
        )
    return AGAIN


def _additional(folder, shards):
    """A Fault for the shards in `folder` that no index names: they may be another model's."""
    extra = sorted(shown(path.name) for path in folder.glob(SHARDS) if path.name not in shards)
    what = f"{folder}: holds shards that its index does not name: {'; '.join(_cut(extra))}"
    return [Fault(what, "move them away, or download the index that goes with them")] if extra else []


def _compare(folder, where, total, found):
    """Raise LabError where the index, if there is one, and the `found` {shard: Tensors} say different things."""
    if where is None:
        return
    inside = {(tensor.name, shard) for shard, tensors in found.items() for tensor in tensors}
    named = set(where.items())
    faults = [f"{shown(name)} not in {shard}" for name, shard in sorted(named - inside)]
    faults += [f"{shown(name)} in {shard} but not in the index" for name, shard in sorted(inside - named)]
    nbytes = sum(tensor.nbytes for tensors in found.values() for tensor in tensors)
    if faults:
        raise LabError(f"{folder / INDEX}: does not fit its shards: {'; '.join(_cut(faults))}; {REPLACE}")
    if total is not None and (isinstance(total, bool) or total != nbytes):
        # No loader reads it, and not every tool that saves checkpoints counts tied tensors alike: said, not refused.
        what = f"total_size is {shown(total)}, the tensors have {nbytes} bytes"
        print(f"warning: {folder / INDEX}: {what}; every tensor is there, so it goes on", file=sys.stderr)


def _together(faults):
    """One line for `faults`: all that is wrong, and each remedy once."""
    whats = {fault.remedy: [] for fault in faults}
    for fault in faults:
        whats[fault.remedy].append(fault.what)
    return "; ".join(f"{'; '.join(_cut(those))}; {remedy}" for remedy, those in whats.items())


def _cut(items):
    more = len(items) - LISTED
    return items if more <= 0 else [*items[:LISTED], f"and {more} more"]
