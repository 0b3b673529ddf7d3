"""Repositories on the Hugging Face hub: one commit's small files, fetched and checked, or what the cache holds of it.

huggingface_hub's snapshot_download brings them; the shards come by lab/downloads.py.
"""

import hashlib
import os
import re
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, is_offline_mode, snapshot_download
from huggingface_hub.utils import disable_progress_bars, logging

from lab import cache, downloads, transfers
from lab.checkpoints import CARRIED, INDEX, licence_of, shards_of
from lab.cli import LabError, write_atomically
from lab.explanations import LOGIN, RUN_AGAIN, explained
from lab.headers import shown
from lab.hub import Source

SMALL = ("config.json", INDEX, "README.md", *CARRIED)
COMMIT, DIGEST = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{64}")
NO_HUB = "what answers there is not the hub; check HF_ENDPOINT and the proxy"


def find(repository, revision, weights):
    """The Source for `repository` on the hub, or what the cache holds of it where the hub cannot be reached.

    Raises LabError, with the remedy, for whatever goes wrong.
    """
    disable_progress_bars()
    logging.set_verbosity_error()  # an error is one line, and ours
    if revision is not None and (not re.fullmatch(r"\w[\w.+/-]*", revision) or ".." in revision):
        raise LabError(f"{repository}: --revision {shown(revision)} is no branch, tag or commit; check it")
    if not re.match("https?://[^/]", constants.ENDPOINT):
        raise LabError(f"HF_ENDPOINT={shown(constants.ENDPOINT)}: no address (https://...); mend or unset it")
    with explained(repository, revision):
        try:
            info = transfers.patiently(lambda: _ask(repository, revision), transfers.WAITS[:2])
        except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:
            if isinstance(error, errors.HfHubHTTPError) and error.response.status_code not in transfers.PASSING:
                raise
            source = _from_cache(repository, revision, weights, error)
        else:
            source = _from_hub(repository, revision, info)
    if weights == "all":
        downloads.fetch_all(source, shards_of(source.folder))
    return source


def _ask(repository, revision):
    """What the hub knows of `repository` at `revision`: its commit, files, sizes, hashes, card."""
    with _refusing_others(repository):
        info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=transfers.TIMEOUT)
    if not COMMIT.fullmatch(str(info.sha)):
        raise LabError(f"{constants.ENDPOINT}: {NO_HUB}")
    return info


@contextmanager
def _refusing_others(repository):
    """Tell of answers that are none of the hub's, as a proxy's page: huggingface_hub takes them as they come."""
    try:
        yield
    except (errors.HTTPError, errors.EntryNotFoundError, errors.HFValidationError, OSError):
        raise  # which lab/explanations.py explains
    except ImportError as error:  # a proxy of a kind that needs a package more
        raise LabError(f"{repository}: {shown(str(error))}; unset the proxy (HTTPS_PROXY, ALL_PROXY)") from error
    except UnicodeEncodeError as error:  # of the request's headers
        raise LabError(f"{repository}: the token (HF_TOKEN) is none, it is not ASCII; {LOGIN}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"{constants.ENDPOINT}: {NO_HUB}") from error


def _from_hub(repository, revision, info):
    """The Source for the commit that `info` is of, its small files fetched and checked."""
    listed = {file.rfilename: file for file in info.siblings or []}
    with _refusing_others(repository):
        folder = Path(snapshot_download(repository, revision=info.sha, allow_patterns=list(SMALL)))
    if not COMMIT.fullmatch(revision or "main"):
        with suppress(LabError):  # only without the hub it is needed, and a cache may be read-only
            write_atomically(folder.parents[1] / "refs" / (revision or "main"), info.sha)
    for name in SMALL:
        if name in listed:
            check_small(folder / name, listed[name])
    shards = shards_of(folder)
    if missing := [shard for shard in shards if shard not in listed]:
        named = "what its index names:" if INDEX in listed else f"{INDEX} and"
        what = f"the commit {info.sha} lacks {named} {', '.join(missing[:20])}"
        raise LabError(f"{repository}: {what}; choose another --revision")
    digests = {shard: listed[shard].lfs.sha256 for shard in shards if listed[shard].lfs}
    sizes = {shard: listed[shard].size for shard in shards if listed[shard].size is not None}
    if not all(DIGEST.fullmatch(str(digest)) for digest in digests.values()):  # they name files in the cache
        raise LabError(f"{constants.ENDPOINT}: {NO_HUB}")
    named = [getattr(info.card_data, key, None) for key in ("license_name", "license")]
    licence = next((shown(name) for name in named if name not in (None, "other")), None) or licence_of(folder)
    source = Source(folder, repository, info.sha, licence, digests, sizes)
    _drop_wrong_sizes(source)
    for shard in shards:
        if shard not in digests:  # kept in git itself, so it is small
            check_small(downloads.fetch(source, shard), listed[shard])
    return source


def check_small(path, file):
    """Remove the small file at `path`, and raise LabError, where it is not what the hub's listing promises."""
    if not path.is_file():
        raise LabError(f"{path}: did not come from the hub; {RUN_AGAIN}")
    content = path.read_bytes()
    if file.lfs:
        found, promised = hashlib.sha256(content).hexdigest(), file.lfs.sha256
    else:  # git's own name for these bytes
        found, promised = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), file.blob_id
    if promised not in (None, found):
        cache.remove(path, wrong=True)
        what = f"wrong bytes came ({found[:12]}..., promised {promised[:12]}...), so it was removed"
        raise LabError(f"{path}: {what}; run the same command again")


def _drop_wrong_sizes(source):
    for shard, size in source.sizes.items():
        path = source.folder / shard
        if path.is_file() and path.stat().st_size != size:
            found = path.stat().st_size
            print(f"{path}: {found} bytes, where the hub promises {size}: removed from the cache", file=sys.stderr)
            cache.remove(path, wrong=True)


def _from_cache(repository, revision, weights, error):
    """The Source for what the cache holds. Raises LabError, or what huggingface_hub raises, where that is not enough."""
    try:
        kept = snapshot_download(repository, revision=revision, allow_patterns=list(SMALL), local_files_only=True)
    except errors.LocalEntryNotFoundError:
        raise error from None
    folder = Path(kept)
    shards = shards_of(folder)
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing and weights != "later":
        what = f"{len(missing)} of {len(shards)} shards are not in the cache, and the hub cannot be reached"
        raise LabError(f"{repository}: {what}; connect (and unset HF_HUB_OFFLINE), then {RUN_AGAIN}") from error
    if not is_offline_mode():
        print(f"{repository}: the hub cannot be reached; the cache's {folder.name} is used", file=sys.stderr)
    links = [(shard, folder / shard) for shard in shards if (folder / shard).is_symlink()]
    digests = {shard: os.path.basename(os.readlink(link)) for shard, link in links}
    digests = {shard: name for shard, name in digests.items() if DIGEST.fullmatch(name)}
    return Source(folder, repository, folder.name, licence_of(folder), digests)
