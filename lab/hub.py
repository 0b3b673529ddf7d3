"""Where a model is: a local folder, or the Hugging Face hub, from which it is downloaded. What to do if it is missing."""

import re
from pathlib import Path

from lab.checkpoints import CARRIED, INDEX
from lab.cli import LabError

WANTED = ("config.json", INDEX, "model*.safetensors", *CARRIED)  # nothing else is downloaded
THINK_32B = "naver-hyperclovax/HyperCLOVAX-SEED-Think-32B"
SOURCE_32B, SOURCE_TINY = (Path(f"models/HyperCLOVAX-SEED-Think-{size}") for size in ("32B", "Tiny"))
HCX, TINY = (path.with_name(f"{path.name}-Text-8bit") for path in (SOURCE_32B, SOURCE_TINY))
NEED = "66 GB to download, 35 GB more for the result, then a Mac with 48 GB of memory to run it"


def find_checkpoint(hf_path):
    """The local folder of a checkpoint given as a folder or as a hub id, which is downloaded.

    Raises LabError where there is neither.
    """
    folder = Path(hf_path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise LabError(f"{hf_path}: a file; give the folder that holds config.json and the shards")
    if hf_path.startswith("models/") or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", hf_path):
        remedies = {
            SOURCE_32B: f"`hf download {THINK_32B} --local-dir {hf_path}` gets it ({NEED})",
            SOURCE_TINY: f"`git checkout -- {SOURCE_TINY}` brings it back",
        }
        places = {path.resolve(): remedy for path, remedy in remedies.items()}
        raise LabError(f"{hf_path}: no such folder; {places.get(folder.resolve(), 'check the path')}")
    return _download(hf_path)


def check_model(path):
    """Raise LabError, with the command that builds it, where there is no converted model."""
    if not (Path(path) / "config.json").is_file():
        profile = " PROFILE=hcx" if Path(path).name == HCX.name else ""
        raise LabError(f"{path}: no model here (no config.json); `make convert{profile}` builds it")


def _download(repository):
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=list(WANTED)))
    except errors.GatedRepoError as error:
        what = f"gated; accept its licence at https://huggingface.co/{repository}, then run `hf auth login`"
        raise LabError(f"{repository}: {what}") from error
    except errors.RepositoryNotFoundError as error:
        what = "no such folder, and no such model on the hub; check the name, or run `hf auth login`"
        raise LabError(f"{repository}: {what}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError) as error:
        what = "no such folder, and the hub cannot be reached; connect (and unset HF_HUB_OFFLINE)"
        raise LabError(f"{repository}: {what}") from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LabError(f"{repository}: download broke off ({reason}); run the same command again") from error
