"""KMMLU's files from the Hugging Face hub: those of one commit that are needed, checked by their hashes, in its cache."""

import re
from contextlib import suppress
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, hf_hub_download
from huggingface_hub.utils import disable_progress_bars, logging

from lab import transfers
from lab.cli import LabError, write_atomically
from lab.explanations import explained
from lab.kmmlu import HAERAE
from lab.kmmlu_data import HAERAE_FILE, HAERAE_REPOSITORY, Files, listing
from lab.progress import progress
from lab.repositories import COMMIT, NO_HUB, check_small

DATASET = {"repo_type": "dataset"}
OFFLINE = "the hub cannot be reached, and the cache does not hold it"
BRANCH = "main"  # of HAE-RAE: what it stands for is asked once a run, and written down


def fetch(subset, splits, revision=None):
    """The Files of `subset` at `revision` (a branch, tag or commit; KMMLU's is pinned), downloaded where the cache lacks them.

    What a branch means is asked once and said in `source`. Without the hub, what the cache holds is used. Raises LabError.
    """
    disable_progress_bars()
    logging.set_verbosity_error()  # an error is one line, and ours
    revision = revision or (BRANCH if subset.task is HAERAE else listing().revision)
    if not re.fullmatch(r"\w[\w.+/-]*", revision) or ".." in revision:
        raise LabError(f"--revision {revision}: no branch, tag or commit; check it")
    repository = HAERAE_REPOSITORY if subset.task is HAERAE else listing().repository
    with explained(f"datasets/{repository}", revision):
        try:
            info = transfers.patiently(lambda: _ask(repository, revision), transfers.WAITS[:2])
        except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:
            if isinstance(error, errors.HfHubHTTPError) and error.response.status_code not in transfers.PASSING:
                raise
            return _from_cache(repository, subset, splits, revision)
        return _from_hub(repository, subset, splits, revision, info)


def _ask(repository, revision):
    info = HfApi().dataset_info(repository, revision=revision, files_metadata=True, timeout=transfers.TIMEOUT)
    if not COMMIT.fullmatch(str(info.sha)):
        raise LabError(f"{constants.ENDPOINT}: {NO_HUB}")
    return info


def _from_hub(repository, subset, splits, revision, info):
    listed = {file.rfilename: file for file in info.siblings or []}
    names = {
        (subject, split): _name(subset, subject, split, listed) for subject in subset.subjects for split in splits
    }
    if missing := [name for name in names.values() if name not in listed]:
        what = f"the commit {info.sha} lacks {', '.join(missing[:4])}"
        raise LabError(f"{repository}: {what}; choose another --revision, or name a folder with --data-dir")
    paths = {}
    for key, name in progress(list(names.items()), "downloading"):
        paths[key] = Path(hf_hub_download(repository, name, revision=info.sha, **DATASET))
        check_small(paths[key], listed[name])
    if not COMMIT.fullmatch(revision):
        with suppress(LabError):  # only without the hub it is needed, and a cache may be read-only
            storage = next(path for path in next(iter(paths.values())).parents if path.parent.name == "snapshots")
            write_atomically(storage.parents[1] / "refs" / revision, info.sha)
    return Files(f"{repository}@{info.sha}", paths)


def _name(subset, subject, split, listed):
    """The file's name in the repository; HAE-RAE's layout is not written down, so it is looked for."""
    if subset.task is not HAERAE:
        return listing().file(subject, split)
    found = sorted(name for name in listed if HAERAE_FILE in name and name.endswith(".csv"))
    return next((name for name in found if split in name), found[0] if found else f"{HAERAE_FILE}-{split}.csv")


def _from_cache(repository, subset, splits, revision):
    if subset.task is HAERAE:
        raise LabError(f"{repository}: {OFFLINE}; connect, or name a folder with --data-dir")
    paths = {}
    for subject in subset.subjects:
        for split in splits:
            name = listing().file(subject, split)
            try:
                kept = hf_hub_download(repository, name, revision=revision, local_files_only=True, **DATASET)
            except errors.LocalEntryNotFoundError as error:
                what = f"{OFFLINE} ({name})"
                raise LabError(f"{repository}: {what}; connect, or name a folder with --data-dir") from error
            paths[subject, split] = Path(kept)
    commit = next(
        path.parent.name for path in next(iter(paths.values())).parents if path.parent.parent.name == "snapshots"
    )
    print(f"{repository}: the hub cannot be reached; the cache's {commit} is used", flush=True)
    return Files(f"{repository}@{commit}", paths)
