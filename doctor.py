"""What this machine has and lacks for a profile, each lack with its remedy:  python doctor.py --profile hcx

Exit codes: 0 all that is needed is there, 1 no such profile, 2 bad usage, 3 something needed is missing.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path

from lab import blas
from lab.cli import ROOT, CheckFailed, LabError, finish, read_json

GB = 1e9
Check = namedtuple("Check", "ok found remedy needed", defaults=[True])  # only `needed` ones decide the exit code
AGAIN = "`rm -r .venv`, then `make setup`"
GPU_MEMORY = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]


def read_profile(name):
    """The `KEY := value` lines of configs/<name>/profile.mk, as Make reads them."""
    path = ROOT / "configs" / name / "profile.mk"
    if not path.is_file():
        known = ", ".join(sorted(other.parent.name for other in ROOT.glob("configs/*/profile.mk")))
        raise LabError(f"--profile {name}: no such profile; there are: {known}")
    return dict(re.findall(r"^(\w+) :=[ \t]*(.*?)[ \t]*$", path.read_text(encoding="utf-8"), re.MULTILINE))


def check_packages():
    """Python's version, and every package against requirements.txt."""
    yield Check(
        sys.version_info >= (3, 11), f"Python {platform.python_version()}", f"Python 3.11 or newer; {AGAIN}"
    )
    pins = re.compile(r"^([\w.-]+)==([^\s;]+)(?: *; *sys_platform == \"(\w+)\")?", re.MULTILINE)
    installed = {package.name.lower().replace("_", "-"): package.version for package in metadata.distributions()}
    wrong = []
    for name, wanted, system in pins.findall((ROOT / "requirements.txt").read_text(encoding="utf-8")):
        present = installed.get(name.lower().replace("_", "-"))
        if system in ("", sys.platform) and present != wanted:
            wrong.append(f"{name} {present or 'none'} (wanted {wanted})")
    yield Check(not wrong, f"packages: {', '.join(wrong) or 'as in requirements.txt'}", AGAIN)


def gpu_memory():
    """The first NVIDIA GPU's memory in GB; 0 where nvidia-smi does not answer."""
    try:
        answer = subprocess.run(GPU_MEMORY, capture_output=True, check=True, timeout=20).stdout
        return float(answer.split()[0]) * 2**20 / GB
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0.0


def check_device(profile):
    """MLX's backend, the BLAS and the compiler it may need, and memory for the profile's model on that backend."""
    try:
        from lab import device
    except ImportError as error:
        yield Check(False, f"MLX cannot be imported ({error})", AGAIN)
        return
    backend, fast = device.backend(), device.BLAS.fast
    idle = ", an NVIDIA GPU is idle" if backend == "cpu" and gpu_memory() else ""
    yield Check(not idle, f"MLX {device.mx.__version__} on {backend}{idle}", AGAIN, needed=False)
    if backend == "cpu":
        yield Check(fast, f"BLAS: {device.BLAS.name.split(';')[0]}", blas.REMEDY, needed=False)
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang") or "none"
        yield Check(
            fast or compiler != "none", f"C compiler: {compiler}", "`apt-get install gcc`; `make setup`", False
        )
    needed = float(profile["CPU_MEMORY_GB" if backend == "cpu" else "MEMORY_GB"])
    present = gpu_memory() if backend == "cuda" else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    small = "gemma" if "gemma" in profile["MODEL"] else "tiny"
    yield Check(
        present >= needed, f"memory: {present:.0f} GB, {needed:.0f} GB needed", f"more, or PROFILE={small}"
    )


def missing_files(folder):
    """The names of the files that a checkpoint folder must hold and does not."""
    index = folder / "model.safetensors.index.json"
    content = read_json(index, "get it again") if index.is_file() else {}
    shards = set(content.get("weight_map", {"": "model.safetensors"}).values())
    return [name for name in ("config.json", *sorted(shards)) if not (folder / name).is_file()]


def folder_in_cache(repository):
    """Where the hub's cache holds `repository`, or would."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError:
        return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def check_model(profile):
    """The model, converted or as published; the token to fetch it; disk for what is still to be made."""
    source, repository, size = profile["HF_MODEL"], profile["HF_REPO"], float(profile["DOWNLOAD_GB"])
    download = f"`.venv/bin/hf download {repository} --local-dir {source}` ({size:.0f} GB)"
    remedy = download if repository else f"`git checkout {source}`, or `make tiny-model`"
    converted = (ROOT / profile["MODEL"] / "summary.json").is_file()
    fetched = bool(repository) and repository == profile["MODEL"]  # by whatever command needs it first
    if fetched:
        source, remedy = folder_in_cache(repository), f"none needed: the first command fetches it ({size:.0f} GB)"
    missing = [] if converted else missing_files(ROOT / source)
    lacks = f" lacks {', '.join(missing[:3])}{' ...' if missing[3:] else ''}" if missing else ""
    yield Check(not missing, f"model: {profile['MODEL'] if converted else source}{lacks}", remedy, not fetched)
    if profile["GATED"] and missing:
        from huggingface_hub import get_token

        yield Check(
            bool(get_token()), "Hugging Face token", f"accept {repository}'s terms, `.venv/bin/hf auth login`"
        )
    needed = 0.0 if converted else float(profile["DISK_GB"]) + (size if missing else 0)
    free = shutil.disk_usage(ROOT).free / GB
    yield Check(free >= needed, f"disk: {free:.0f} GB free, {needed:.0f} GB still needed", "free some")


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="tiny", help="folder in configs/ (%(default)s)")
    return parser.parse_args(argv)


def main(argv=None):
    name, lacking = parse_args(argv).profile, 0
    profile = read_profile(name)
    for check in (*check_packages(), *check_device(profile), *check_model(profile)):
        print(f"ok  {check.found}" if check.ok else f"--  {check.found}; remedy: {check.remedy}")
        lacking += check.needed and not check.ok
    if lacking:
        raise CheckFailed(f"profile {name}: {lacking} needed missing; the remedies are above")
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
