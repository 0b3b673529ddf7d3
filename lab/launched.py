"""What a process knows of the ranks it was launched with, from its environment; nothing heavy is imported here.

`mlx.launch` and lab.launch set it. Source: mlx 0.32.4, mlx/_distributed_utils/launch.py.
"""

import json
import os
import shlex
import sys
from functools import cache
from pathlib import Path

BACKENDS = {"MLX_HOSTFILE": "ring", "NCCL_HOST_IP": "nccl", "MLX_JACCL_COORDINATOR": "jaccl"}
PREFIX = "LAB_LAUNCHED"  # the command that launched the ranks, as lab.launch says it
ENDED = "LAB_ENDED"  # file where the first rank writes how it ended, for lab.launch


def rank():
    """This process's number, from 0."""
    return int(os.environ.get("MLX_RANK", "0")) if size() > 1 else 0


def backend():
    """MLX's name for how the ranks talk, or None."""
    return next((name for variable, name in BACKENDS.items() if os.environ.get(variable)), None)


@cache
def size():
    """How many ranks there are; 1 for a process that was started alone."""
    if "MLX_RANK" not in os.environ:
        return 1
    if backend() == "nccl":
        return int(os.environ["MLX_WORLD_SIZE"])
    if backend() == "jaccl":
        return len(json.loads(Path(os.environ["MLX_IBV_DEVICES"]).read_text()))
    return max(1, len(_ring()))


@cache
def _ring():
    """The addresses of each rank of a ring, ["host:port", ...] for each; MLX leaves the file empty for one rank."""
    path = os.environ.get("MLX_HOSTFILE")
    return json.loads((Path(path).read_text() if path else "") or "[]")


def first_host():
    """The address at which the other ranks reach the first one."""
    if backend() == "ring":
        return _ring()[0][0].rpartition(":")[0]
    return (os.environ.get("NCCL_HOST_IP") or os.environ["MLX_JACCL_COORDINATOR"]).partition(":")[0]


def command():
    """The words that launch the ranks, before the command itself; [] for a process that was started alone."""
    if size() == 1:
        return []
    if os.environ.get(PREFIX):
        return shlex.split(os.environ[PREFIX])
    beside = Path(sys.executable).with_name("mlx.launch")
    hosts = {addresses[0].rpartition(":")[0] for addresses in _ring()}
    here = ["-n", str(size())] if hosts <= {"127.0.0.1"} else ["--hostfile", "HOSTFILE"]
    return [str(beside) if beside.exists() else "mlx.launch", *here, "--backend", backend(), "--"]


def say_how_it_ended(word):
    """Tell lab.launch of this process, the first rank: its id at the start ("pid ..."), its exit code at the end."""
    if path := os.environ.get(ENDED):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{word}\n")
