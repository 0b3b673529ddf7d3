"""What convert_hyperclova.py says when the hub fails, or what comes from it is wrong:  python bench/refused_hub.py

Serves the embedded checkpoint from a stand-in for the Hugging Face hub (tests/hub_server.py) on this machine, orders
one fault after another, runs the real command on it in a process of its own, and prints a Markdown table of faults, exit codes
and messages. Waits between attempts are shortened. HUB: its address; ~: where cache and result lie.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.hub_server import Hub  # noqa: E402  (after the path)

NAME = "naver/tiny"
ONE = "model-00001-of-00002.safetensors"
COMMAND = """
import sys
from lab import cli, transfers
import convert_hyperclova
transfers.WAITS, transfers.TIMEOUT = (0.05,) * 3, 2
sys.exit(cli.finish(convert_hyperclova.main, sys.argv[1:]))
"""
ALWAYS = 1000
# {what is wrong: (fault to order or None, flags, environment)}
CASES = {
    "no such model": (None, ["--hf-path", "naver/none"], {}),
    "gated, no token": ("gated", [], {}),
    "gated, licence not accepted": ("gated", [], {"HF_TOKEN": "hf_of_somebody"}),
    "no such revision": (None, ["--revision", "v9"], {}),
    "a revision that is none": (None, ["--revision", "../main"], {}),
    "HF_HUB_OFFLINE, nothing in the cache": (None, [], {"HF_HUB_OFFLINE": "1"}),
    "nobody answers": (None, [], {"HF_ENDPOINT": "http://127.0.0.1:9"}),
    "503 at every attempt": (("status", "api", 503, ALWAYS), [], {}),
    "a proxy's page": (("page", "api", 0, ALWAYS), [], {}),
    "the connection is cut twice": (("cut", ONE, 1_000_000, 2), [], {}),
    "no byte comes": (("cut", ONE, 0, ALWAYS), [], {}),
    "a shard too short": (("size", ONE, -1000, ALWAYS), [], {}),
    "a shard too long": (("size", ONE, 1000, ALWAYS), [], {}),
    "one bit of a shard is another": (("bytes", ONE, 2_000_000, ALWAYS), [], {}),
    "one bit of tokenizer.json is another": (("bytes", "tokenizer.json", 100, ALWAYS), [], {}),
    "500 in the middle": (("status", ONE, 500, 2), [], {}),
}


def run(title, folder):
    """(exit code, last line of the message) of the command with one fault."""
    fault, flags, environment = CASES[title]
    source = ROOT / "models" / "HyperCLOVAX-SEED-Think-Tiny"
    files = {path.name: path.read_bytes() for path in source.iterdir() if path.name != "summary.json"}
    with Hub() as hub:
        hub.add(NAME, files, gated=fault == "gated")
        if isinstance(fault, tuple):
            hub.order(*fault)
        command = [sys.executable, "-c", COMMAND, "--hf-path", NAME, "--mlx-path", str(folder / "target"), *flags]
        settings = hub.environment(folder / "home", **environment)
        done = subprocess.run(command, env=settings, cwd=ROOT, capture_output=True, text=True)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    said = lines[-1].replace(str(folder), "~").replace(settings["HF_ENDPOINT"], "HUB").replace("|", "\\|")
    return done.returncode, re.sub(r"/[0-9a-f]{40}/", "/COMMIT/", said)


def main():
    print("| the hub | exit | what is said |\n|---|---|---|")
    for title in CASES:
        with tempfile.TemporaryDirectory() as name:
            code, said = run(title, Path(name))
        print(f"| {title} | {code} | {said} |", flush=True)


if __name__ == "__main__":
    main()
