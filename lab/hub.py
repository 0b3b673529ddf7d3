"""Where a model is: a local folder, or the Hugging Face hub, from which it is fetched. What to do if it is missing."""

import os
import re
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache
from io import StringIO
from pathlib import Path

from lab import cache, checkpoints
from lab.cli import LabError

THINK_32B = "naver-hyperclovax/HyperCLOVAX-SEED-Think-32B"
SOURCE_32B, SOURCE_TINY = (Path(f"models/HyperCLOVAX-SEED-Think-{size}") for size in ("32B", "Tiny"))
HCX, TINY = (path.with_name(f"{path.name}-Text-8bit") for path in (SOURCE_32B, SOURCE_TINY))
NEED = "66 GB to download, 35 GB more for the result, then a Mac with 48 GB of memory to run it"
GEMMA_9B = "google/gemma-2-9b-it"
GEMMA, GEMMA_TINY = Path("models/gemma-2-9b-it"), Path("models/Gemma-2-Tiny")
SMALL_HIDDEN = 512  # hidden size up to which a model counts as small: the embedded model's is 192
WEIGHTS = ("all", "headers", "later")


@dataclass(frozen=True)
class Source:
    """A checkpoint to read: a local folder, or a commit of a repository on the hub.

    `folder` holds config.json, tokenizer files and index, and the shards once fetched. `revision` is the commit
    (40 hexadecimal digits) and `digests` {shard: SHA-256 that the hub promises}; None and {} for a local folder.
    """

    folder: Path
    repository: str | None = None
    revision: str | None = None
    licence: str | None = None
    digests: dict = field(default_factory=dict)
    sizes: dict = field(default_factory=dict)

    def tensors(self):
        """{name: Tensor} of the checkpoint, checked; headers of shards not yet fetched are read over the network.

        Raises LabError as checkpoints.read_checkpoint does, and where the hub cannot be read.
        """
        if self.repository is None:
            return checkpoints.read_checkpoint(self.folder)
        from lab import downloads

        return checkpoints.read_checkpoint(self.folder, downloads.headers_of(self))

    def fetch(self, shard, told=lambda nbytes: None):
        """The path of `shard` in `folder`, downloaded if need be and then of the promised SHA-256.

        `told` is called with the number of bytes that came, again and again. Raises LabError where it cannot be had, or holds other bytes: those are removed.
        """
        if self.repository is not None:
            from lab import downloads

            return downloads.fetch(self, shard, told)
        if not (self.folder / shard).is_file():
            raise LabError(f"{self.folder / shard}: no such file; {checkpoints.AGAIN}")
        return self.folder / shard

    def fetch_all(self, shards):
        """Make sure that all `shards` lie in `folder`, several at a time. Raises LabError as `fetch` does."""
        if self.repository is not None:
            from lab import downloads

            downloads.fetch_all(self, shards)

    def refuse(self, shard, found):
        """Raise LabError: `shard` has the SHA-256 `found`, not the promised one. What the cache holds is removed."""
        from lab import downloads

        downloads.refuse(self, shard, found)

    def release(self, shard):
        """Delete `shard` from the disk; in a cache of the hub the link and, unless shared, what it leads to."""
        cache.remove(self.folder / shard)


def default_hcx():
    """The HyperCLOVA X model of a command that is told none: the 32B where it is converted, else the embedded one."""
    return HCX if HCX.is_dir() else TINY


def default_gemma():
    """The same of Gemma-2: the 9B where it lies in models/, else the embedded one."""
    return GEMMA if GEMMA.is_dir() else GEMMA_TINY


def find_source(hf_path, revision=None, weights="all"):
    """The Source that `hf_path` names: a local folder, or a hub id at `revision` (the default branch's newest commit).

    `weights` says what is downloaded now: "all" shards, or none but the "headers", or each "later" by `fetch`.
    Raises LabError where there is neither, or the download fails.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights={weights!r}: one of {', '.join(WEIGHTS)}")
    hf_path = str(hf_path)
    folder = Path(os.path.expanduser(hf_path))
    if os.path.isdir(folder):
        if not os.access(folder, os.R_OK | os.X_OK):
            raise LabError(f"{hf_path}: a folder that you may not read; make it readable (`chmod u+rx`)")
        if revision is not None:
            raise LabError(f"--revision {revision}: {hf_path} is a local folder, which has none; leave it out")
        cache.refuse_outside(folder / "config.json")
        return Source(folder, licence=checkpoints.licence_of(folder))
    if os.path.exists(folder):
        raise LabError(f"{hf_path}: a file; give the folder that holds config.json and the shards")
    if not _is_id(hf_path):
        raise LabError(f"{hf_path}: no such folder; {_remedy(hf_path)}")
    try:
        with redirect_stdout(StringIO()):  # there it tells of it in its own way, too
            from lab import repositories
    except ValueError as error:  # huggingface_hub takes HF_ENDPOINT apart as soon as it is imported
        raise LabError(
            f"HF_ENDPOINT={os.environ.get('HF_ENDPOINT')}: no address ({error}); mend or unset it"
        ) from error
    return repositories.find(hf_path, revision, weights)


def model_folder(model):
    """The folder of `model`: a local one, or the hub's cache for an id like google/gemma-2-9b-it, downloaded if need be.

    Raises LabError, with the command that builds it, where a folder holds no model, and as find_source does for an id.
    """
    folder = Path(os.path.expanduser(model))
    if os.path.isfile(folder / "config.json"):
        return folder
    if os.path.exists(folder) or folder.is_absolute() or not _is_id(str(model)):
        raise LabError(f"{model}: no model here (no config.json); {_builds(folder)}")
    return _downloaded(str(model))


@lru_cache
def _downloaded(repository):
    """Asked once in a process: a commit that is new meanwhile changes nothing in the middle of a run."""
    return find_source(repository).folder


def _is_id(text):
    return not text.startswith("models/") and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", text)


def _builds(folder):
    """What brings a missing model."""
    if folder.name == GEMMA_TINY.name:
        return f"`git checkout -- {GEMMA_TINY}` brings it back"
    if folder.name == GEMMA.name:
        return f"`--model {GEMMA_9B}` downloads it"
    if folder.name in (HCX.name, TINY.name):
        return f"`make convert{' PROFILE=hcx' if folder.name == HCX.name else ''}` builds it"
    return f"check the path, or name a model of the hub, {GEMMA_9B} say"


def _remedy(hf_path):
    remedies = {
        SOURCE_32B: f"`hf download {THINK_32B} --local-dir {hf_path}` gets it ({NEED})",
        SOURCE_TINY: f"`git checkout -- {SOURCE_TINY}` brings it back",
    }
    places = {path.resolve(): remedy for path, remedy in remedies.items()}
    if "://" in hf_path:
        return "name a model of the hub by its id alone, organisation/name"
    return places.get(Path(hf_path).expanduser().resolve(), "check the path")
