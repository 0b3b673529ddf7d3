"""Run a command on several ranks:  python -m lab.launch --ranks 2 -- python train_with_early_stopping.py ...

On this machine the ranks are started here, one for each GPU where there are several; `--hostfile FILE` gives the work to
`mlx.launch`, over ssh. Either way the exit code is that of the ranks (mlx.launch's own is 0 whatever happens, and on one
machine it keeps a processor core busy: 4.9 s of 5 s), and SIGINT or SIGTERM stops all of them where nothing is lost.
"""

import argparse
import importlib.metadata
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from lab import launched
from lab.cli import STOPPED, USER_ERROR, LabError, finish

LOOPBACK = "127.0.0.1"
PORTS = (20000, 32000)  # below those that Linux and macOS hand out (from 32768 and 49152 on)
STARTING = 60  # seconds in which the first rank says that it is there
AT_THE_END = 20  # seconds for the other ranks to end after one has
THREADS = "OPENBLAS_NUM_THREADS"


def main(argv=None):
    args = parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ask)
    with tempfile.TemporaryDirectory() as folder:
        ended = Path(folder) / "ended"
        ended.touch()
        start = _through_mlx if args.hostfile else _here
        with ExitStack() as stack:
            processes = [stack.enter_context(process) for process in start(args, Path(folder), ended)]
            return _wait(processes, ended)


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=1, help="processes on this machine (%(default)s)")
    parser.add_argument("--hostfile", type=Path, help="mlx.launch's JSON file of machines, this one first")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")
    args = parser.parse_args(argv)
    args.command = args.command[args.command[:1] == ["--"] :]
    if not args.command or args.ranks < 1:
        parser.error("give --ranks N (1 or more), or --hostfile FILE, and a command after --")
    return args


_asked = {"times": 0}


def _ask(number, frame):
    _asked["times"] += 1


def _prefix(*flags):
    return shlex.join([sys.executable, "-m", "lab.launch", *flags, "--"])


def _here(args, folder, ended):
    """Start the ranks on this machine; yields their processes."""
    common = {launched.ENDED: str(ended), launched.PREFIX: _prefix("--ranks", str(args.ranks))}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    common |= {} if THREADS in os.environ else {THREADS: str(max(1, cores // args.ranks))}
    ports = _free_ports(args.ranks)
    if _gpus() >= args.ranks:
        common |= {"NCCL_HOST_IP": LOOPBACK, "NCCL_PORT": str(ports[0]), "MLX_WORLD_SIZE": str(args.ranks)}
    else:
        hosts = folder / "hosts.json"
        hosts.write_text(json.dumps([[f"{LOOPBACK}:{port}"] for port in ports] if args.ranks > 1 else []))
        common |= {"MLX_HOSTFILE": str(hosts)}
    for rank in range(args.ranks):
        own = {"MLX_RANK": str(rank)} | ({"CUDA_VISIBLE_DEVICES": str(rank)} if "NCCL_PORT" in common else {})
        try:
            # a session of its own: Ctrl-C comes to this process alone, which asks the first rank once
            yield subprocess.Popen(args.command, env={**os.environ, **common, **own}, start_new_session=True)
        except OSError as error:
            raise LabError(f"{args.command[0]}: cannot run ({error.strerror}); name a command after --") from error


def _free_ports(number):
    """Ports in a row on which nothing listens now; none that the system hands out, or another program may be given it."""
    while True:
        first = random.randrange(*PORTS)
        try:
            with ExitStack() as held:
                for port in range(first, first + number):
                    held.enter_context(socket.create_server((LOOPBACK, port)))
        except OSError:
            continue
        return list(range(first, first + number))


def _gpus():
    """How many NVIDIA GPUs MLX can use here: none without its CUDA build."""
    built = any(found.name.startswith("mlx-cuda") for found in importlib.metadata.distributions())
    if not built or not shutil.which("nvidia-smi"):
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return listed.count("GPU ")


def _through_mlx(args, folder, ended):
    """Start mlx.launch on the hostfile; yields its process."""
    if not args.hostfile.is_file():
        raise LabError(f"{args.hostfile}: no such file; README.md shows one")
    beside = Path(sys.executable).with_name("mlx.launch")
    prefix = _prefix("--hostfile", str(args.hostfile))
    told = [f"{launched.ENDED}={ended}", f"{launched.PREFIX}={prefix}"]
    command = [str(beside) if beside.exists() else "mlx.launch", "--hostfile", str(args.hostfile)]
    command += ["--starting-port", str(random.randrange(*PORTS, 16))]
    command += [word for variable in told for word in ("--env", variable)]
    # a pipe that stays open: at the end of its input mlx.launch would read in circles
    yield subprocess.Popen([*command, "--", *args.command], stdin=subprocess.PIPE, start_new_session=True)


def _wait(processes, ended):
    """Wait for the end, passing a request to stop on to the first rank; returns the exit code."""
    told, over, started = 0, None, time.monotonic()
    while any(process.poll() is None for process in processes):
        time.sleep(0.05)
        first = _first_rank(ended)
        if told < _asked["times"] and (first or time.monotonic() - started > STARTING):
            told += 1
            _stop(first, processes)
        if over is None and any(process.poll() for process in processes):
            over = time.monotonic()
        if over is not None and time.monotonic() - over > AT_THE_END:
            for process in processes:
                process.kill()
    return _code(processes, ended)


def _first_rank(ended):
    """The first rank's process id, once it has said it."""
    lines = ended.read_text(encoding="utf-8").splitlines()
    return int(lines[0].split()[1]) if lines else None


def _stop(first, processes):
    """Ask the first rank, if it runs on this machine; else end what was started here, which ranks notice."""
    try:
        os.kill(first, signal.SIGTERM)
    except (ProcessLookupError, TypeError):
        for process in processes:
            process.terminate()


def _code(processes, ended):
    """The exit code that the first rank said; without one: it died, which is resumable, or never came to begin."""
    lines = ended.read_text(encoding="utf-8").splitlines()
    if len(lines) > 1:
        return int(lines[-1])
    codes = [process.returncode for process in processes]
    return STOPPED if lines else next((code for code in codes if code > 0), USER_ERROR if any(codes) else 0)


if __name__ == "__main__":
    sys.exit(finish(main))
