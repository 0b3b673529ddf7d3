"""A conversion from its plan to the finished folder: shards, then what travels with them, then checks, summary last."""

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec

from lab import building, checkpoints, model_card, places, turn_ends
from lab.cli import LabError, sha256, write_atomically, write_json, write_summary
from lab.conversion import Engine
from lab.conversion_check import check_shard
from lab.conversion_plan import bytes_of, cores, sources_of, stat_of
from lab.conversion_report import source_hashes
from lab.durable import sync_folder
from lab.hashing import Hashing
from lab.progress import bytes_lines, bytes_progress, progress


def run(plan, build, args):
    """Write all that is still missing of the converted model into `build`, its summary last."""
    if find_spec("mlx_lm") is None:  # it is imported later, beside the shards: too late to be told then
        raise ModuleNotFoundError("No module named 'mlx_lm'", name="mlx_lm")
    drop_damaged(plan, build)
    if args.consume_source:
        for shard in build.said("consumed"):
            plan.source.release(shard)  # a crash may have come between the journal and the deletion
    todo = {name: steps for name, steps in plan.shards.items() if name not in build.said("shard")}
    shared = places.on_one_disk(plan.source.folder, build.folder)
    download = plan.to_download(todo, args.consume_source) if shared else 0
    building.refuse_full_disk(build.target, sum(map(bytes_of, todo.values())) + download)
    if not args.consume_source:
        plan.source.fetch_all([name for name in plan.identities if name not in build.said("consumed")])
    started = time.monotonic()
    with SourceHashes(plan, build) as hashes, ThreadPoolExecutor(1) as aside:
        aside.submit(import_tokenizers)
        write_shards(plan, todo, build, hashes, args)
        hashes.wait([shard for shard in plan.identities if shard not in build.said("consumed")])
    if todo:
        tell_speed(todo, time.monotonic() - started)
    names = write_rest(plan, build, args)
    results = results_of(plan, build)
    from lab import conversion_answer  # only now: it loads mlx-lm

    print("checking the result: a few tokens by plain mlx-lm", flush=True)
    results["prompt"] = conversion_answer.PROMPT
    results["answer"] = conversion_answer.check_answer(build.folder)
    results["files"] = hash_files(build, [*plan.shards, *names])
    refuse_changed(plan)
    inputs = {f"{args.hf_path}/{name}": digest for name, digest in source_hashes(results["source"]).items()}
    write_summary(build.folder / places.SUMMARY, args, inputs, results)


def import_tokenizers():
    """Import what takes mlx-lm most of its second. A failure is told where it is used.

    No more of it: a thread of Python's that has used MLX can abort the process while Python ends (MLX 0.32.4).
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # as mlx-lm does
    with suppress(ImportError):
        from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401


def write_rest(plan, build, args):
    """Write what goes with the shards (index, config, tokenizer, end tokens, model card); returns the files' names."""
    write_json(build.folder / checkpoints.INDEX, plan.index())
    write_json(build.folder / "config.json", plan.config)
    source, ends = plan.source.folder, plan.model.ends
    carried = turn_ends.kept([source / name for name in checkpoints.CARRIED if name in plan.beside], ends)
    for name in set(checkpoints.CARRIED) - {path.name for path in carried}:
        (build.folder / name).unlink(missing_ok=True)  # of an earlier try, and since gone from the source
    for path in carried:
        write_atomically(build.folder / path.name, path.read_bytes())
    turn_ends.write(ends, build.folder)
    write_atomically(build.folder / places.MODEL_CARD, model_card.text(plan, args))
    settled = [turn_ends.GENERATION] if ends.generation is not None else []
    return [checkpoints.INDEX, "config.json", places.MODEL_CARD, *settled, *(path.name for path in carried)]


def tell_speed(shards, seconds):
    """Print how long the shards took, their checks and the hashes of both sides included."""
    nbytes = sum(step.source_bytes for steps in shards.values() for step in steps)
    print(f"converted in {seconds:.1f} s ({nbytes / 1e6 / seconds:,.0f} MB/s)", flush=True)


def drop_damaged(plan, build):
    """Strike out of the journal what it says to be written and is not so on the disk any more; remove what it does not say.

    Raises LabError where the source of such a shard is consumed.
    """
    done = build.said("shard")
    kept = progress(list(done), f"checking what is in {build.folder}") if done else ()
    for name in [name for name in kept if not building.is_whole(build.folder / name, done[name])]:
        gone = [shard for shard in sources_of(plan.shards[name]) if shard in build.said("consumed")]
        if gone:
            what = (
                f"damaged, and its source is consumed; download {', '.join(gone)} again and remove {build.folder}"
            )
            raise LabError(f"{build.folder / name}: {what}")
        print(f"{build.folder / name}: damaged since it was written, so it is written again")
        del done[name]
    for path in build.folder.glob("*.safetensors"):
        if path.name not in done:
            path.unlink()  # half a shard would be written over anyway, and takes the room that is looked for next


def write_shards(plan, todo, build, hashes, args):
    """Write, check and record the shards `todo` one after the other; consume the source on the way if asked to."""
    source = plan.source
    left = Counter(shard for steps in todo.values() for shard in sources_of(steps))
    with bytes_progress(sum(step.source_bytes for steps in todo.values() for step in steps), "converting") as told:
        engine = Engine(args, told)
        for name, steps in todo.items():
            needed = sources_of(steps)
            for shard in needed:
                if not (source.folder / shard).is_file():
                    print(f"{source.repository or source.folder}: fetching {shard}", flush=True)
                source.fetch(shard, bytes_lines(source.sizes.get(shard, 0), f"downloading {shard}"))
                hashes.begin(shard)
            path = build.folder / name
            digest = engine.write(path, steps)
            checked = check_shard(path, steps, args)
            hashes.wait(needed)  # before it is recorded: what was made of wrong bytes must not count as done
            facts = {"sha256": digest, "bytes": path.stat().st_size, "checked": checked}
            build.say("shard", name, facts)
            left.subtract(needed)
            if args.consume_source:
                consume([shard for shard in needed if not left[shard]], source, build, hashes)
    if args.consume_source:  # shards of which an earlier run had converted all
        consume([name for name in plan.identities if name not in build.said("consumed")], source, build, hashes)


def consume(shards, source, build, hashes):
    """Delete source shards of which all is converted, recorded and hashed. The journal knows it first."""
    hashes.wait(shards)
    sync_folder(build.folder)  # the shards made of them are durable by name, too
    for shard in shards:
        build.say("consumed", shard, {})
        source.release(shard)


class SourceHashes:
    """The SHA-256 of source shards, computed beside the conversion, while the disk's cache still holds them."""

    def __init__(self, plan, build):
        self.plan, self.build, self.running = plan, build, {}

    def __enter__(self):
        self.pool = Hashing(max(1, cores() // 4)).__enter__()
        return self

    def __exit__(self, *failure):
        self.pool.__exit__(*failure)

    def begin(self, shard):
        """Begin with a shard, if it is not done."""
        if shard not in self.build.said("source") and shard not in self.running:
            path = self.plan.source.folder / shard
            self.running[shard] = stat_of(path), self.pool.submit(self.pool.sha256, path)

    def wait(self, shards):
        """Wait until `shards` are hashed and recorded, as they are on the disk now.

        Raises LabError where one is not what the hub promises, or has changed since it was first read.
        """
        for shard in shards:
            path, known = self.plan.source.folder / shard, self.build.said("source").get(shard)
            if known and (known["stat"] == stat_of(path)):
                continue
            self.build.said("source").pop(shard, None)
            self.begin(shard)
            stat, hashed = self.running.pop(shard)
            digest = read_result(hashed, path)
            if digest != self.plan.source.digests.get(shard, digest):
                self.plan.source.refuse(shard, digest)
            same = stat == self.plan.identities[shard] or shard in self.plan.source.digests
            if stat != stat_of(path) or not same or digest != (known or {}).get("sha256", digest):
                raise LabError(f"{path}: changed while it was converted; leave it alone and run the same command")
            self.build.say("source", shard, {"sha256": digest, "stat": stat})


def read_result(hashed, path):
    """The hash of a source shard, once it is there. Raises LabError that names the shard where it cannot be read."""
    try:
        return hashed.result()
    except OSError as error:  # of a read it does not say of which file, and the result's would be blamed
        raise LabError(f"{path}: cannot read ({error.strerror}); download this file again") from error


def results_of(plan, build):
    """What the summary tells of the conversion, its checks apart."""
    source, done = plan.source, build.said("shard")
    return {
        "architecture": plan.config["model_type"],
        "family": plan.model.family,
        "folded": plan.model.folded,
        "end_tokens": {"ids": list(plan.model.ends.ids), "said": list(plan.model.ends.said)},
        "tensors": len(plan.read),
        "dropped": sum(plan.model.left.values()),
        "dropped_parts": plan.model.left,
        "parameters": plan.parameters,
        "source_bytes": plan.source_bytes,
        "output_bytes": plan.output_bytes,
        "bits_per_weight": plan.output_bytes * 8 / plan.parameters,
        "tensors_checked": sum(facts["checked"] for facts in done.values()),
        "source": {
            "repository": source.repository,
            "revision": source.revision,
            "licence": source.licence,
            "folder": str(source.folder),
            "files": plan.beside,
            "shards": {name: build.said("source")[name]["sha256"] for name in plan.identities},
            "fingerprint": build.plan["fingerprint"],
        },
    }


def refuse_changed(plan):
    """Raise LabError where one of the small files is not what the plan was made of."""
    for name, digest in plan.beside.items():
        path = plan.source.folder / name
        if not path.is_file() or sha256(path) != digest:
            raise LabError(f"{path}: changed while it was converted; leave it alone and run the same command")


def hash_files(build, names):
    """{file: its SHA-256 and bytes} of the files `names` in the folder in the making."""
    found = {}
    for name in sorted(names):
        path = build.folder / name
        digest = build.said("shard").get(name, {}).get("sha256") or sha256(path)
        found[name] = {"sha256": digest, "bytes": path.stat().st_size}
    return found
