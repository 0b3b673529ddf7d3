"""Kill real trainer processes again and again, half of them inside a save:  python tests/crash_runs.py --kills 200

Each run is resumed until it is done, then its folder (adapter, numbered copies, curve, summary, and nothing else) is
compared, byte for byte, with that of a run that was never stopped. The model is a small random llama, so that a run takes seconds.

Exit codes: 0 all identical, 2 bad usage, 3 a run ended differently.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAINER = ROOT / "train_with_early_stopping.py"
TOKENIZER = ROOT / "models/HyperCLOVAX-SEED-Think-Tiny"
RESULTS = ("adapters.safetensors", "adapter_config.json", "curve.jsonl", "summary.json", "cost.json")
RESUMABLE = 75
IN_A_SAVE = 0.5  # share of the kills that wait for a save to begin
KILLS_A_RUN = 10
LONGEST_SAVE = 0.005  # seconds, about; a kill falls somewhere in it
PATIENCE = 120  # seconds; no process here takes a tenth of it
SETTINGS = """\
lora_parameters: {rank: 4, scale: 20.0, dropout: 0.1}
optimizer: adamw
lr_schedule: {name: cosine_decay, warmup: 5, arguments: [2e-2, 60, 1e-3]}
batch_size: 4
grad_accumulation_steps: 2
iters: 60
steps_per_report: 3
steps_per_eval: 4
save_every: 6
patience: 0
max_seq_length: 64
"""


def make_world(folder):
    """A random llama, rows and settings in `folder`; returns it."""
    make_model(folder / "model")
    (folder / "data").mkdir()
    places = "부산 대구 인천 광주 울산 제주 전주 수원 청주 춘천".split()
    rows = [
        f"바른식품의 {number}번 창고는 {place}에 있다." for number in range(3) for place in places[: 7 + number]
    ]
    write_rows(folder / "data/train.jsonl", rows)
    write_rows(folder / "data/valid.jsonl", [row.replace("에 있다", "에 자리한다") for row in rows[::4]])
    (folder / "settings.yaml").write_text(SETTINGS, encoding="utf-8")
    return folder


def make_model(folder, seed=0):
    """A llama of 200,000 random weights with the embedded model's tokenizer."""
    sys.path.insert(0, str(ROOT))
    from lab.device import mx  # isort: skip
    from mlx.utils import tree_flatten
    from mlx_lm.models import llama

    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(TOKENIZER / name, folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 2}
    config = {"model_type": "llama", **sizes, "rms_norm_eps": 1e-5, "vocab_size": 2048, "eos_token_id": 2030}
    mx.random.seed(seed)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    mx.save_safetensors(
        str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"}
    )
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def write_rows(path, texts):
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def command(world, *flags):
    """The trainer's command line on a world; run it in a folder of the run's own, so that names are the same in all."""
    files = ("-c", world / "settings.yaml", "--model", world / "model", "--data", world / "data")
    return [sys.executable, str(TRAINER), *map(str, files), "--train", "--adapter-path", "adapters", *flags]


def start(world, folder, *flags):
    """A trainer process in `folder`; what it says goes to log.txt there."""
    folder.mkdir(exist_ok=True)
    with open(folder / "log.txt", "wb") as log:
        return subprocess.Popen(command(world, *flags), cwd=folder, stdout=log, stderr=subprocess.STDOUT)


def finish(world, folder, *flags):
    """Let a run go to its end. Raises RuntimeError with what it said where that is not exit code 0."""
    code = start(world, folder, *flags).wait(PATIENCE)
    if code:
        said = (folder / "log.txt").read_text(encoding="utf-8")
        raise RuntimeError(f"{folder}: exit code {code}: {said[-2000:]}")


def digests(folder):
    """SHA-256 of every file that a run leaves, {name: digest}.

    Without the checkout's commit, which may move meanwhile, and cost.json, which holds what only a clock can say.
    """
    files = [path for path in (folder / "adapters").rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    if missing := {f"adapters/{name}" for name in RESULTS} - found.keys():
        raise RuntimeError(f"{folder}: not there: {missing}")
    found["adapters/summary.json"] = re.sub(rb'"commit": ".*"', b"", found["adapters/summary.json"])
    del found["adapters/cost.json"]
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(found.items())}


def unfinished(folder):
    """{(name, when it was written)}: checkpoints, adapters and curves that are being written, or were when a process died."""
    found = set()
    for place in (folder / "adapters", folder / "adapters/checkpoints"):
        with contextlib.suppress(FileNotFoundError):
            names = [name for name in os.listdir(place) if name.endswith((".partial", ".old"))]
            found |= {(name, os.stat(place / name).st_mtime_ns) for name in names}
    return found


def kill_somewhere(process, folder, chance, aimed):
    """Kill -9 a trainer inside one of its next saves (`aimed`), or at a random moment; one in eight while it starts.

    Returns where it died: "over" (it was done before), "in a save" or "elsewhere".
    """
    left = unfinished(folder)  # by the process before; each save begins with a file of its own

    def saving():
        return not unfinished(folder) <= left

    if not aimed and chance.random() < 0.25:
        wait_until(process, lambda: False, chance.uniform(0, 2))
    else:
        wait_until(process, lambda: training(folder))
        if aimed:
            hold_in_a_save(process, saving, chance)
        else:
            wait_until(process, lambda: False, chance.uniform(0, 1))
    process.send_signal(signal.SIGKILL)
    code = process.wait()
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(
            f"{folder}: exit code {code}: {(folder / 'log.txt').read_text(encoding='utf-8')[-2000:]}"
        )
    return "over" if code == 0 else "in a save" if saving() else "elsewhere"


def hold_in_a_save(process, saving, chance):
    """Let some saves pass, then stop the process (SIGSTOP) while it writes one, or let it end."""
    for _ in range(chance.randint(0, 4)):
        wait_until(process, saving)
        wait_until(process, lambda: not saving())
    for attempt in itertools.count(1):
        wait_until(process, saving)
        time.sleep(chance.uniform(0, LONGEST_SAVE) / attempt)
        process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(process.pid, os.WUNTRACED) if process.poll() is None else (0, 0)
        if not os.WIFSTOPPED(status):
            if process.returncode is None:
                process.returncode = os.waitstatus_to_exitcode(status)
            return
        if saving():  # it stands still, so it is still in the save when it is killed
            return
        process.send_signal(signal.SIGCONT)


def wait_until(process, reached, seconds=PATIENCE):
    """Wait until `reached()`, the process has ended or `seconds` are over."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end and not reached():
        time.sleep(0.0005)


def catches(process, number):
    """Whether a process has a handler for that signal by now, which Linux tells; elsewhere a guess."""
    status = Path(f"/proc/{process.pid}/status")
    if not Path("/proc/self").exists():
        return time.sleep(0.3) is None
    caught = re.search(r"SigCgt:\s*(\w+)", status.read_text()) if status.exists() else None
    return bool(caught) and int(caught[1], 16) >> (number - 1) & 1


def training(folder):
    """Whether this process has come to train: its log, which is emptied for each, tells."""
    return b"sequences: " in (folder / "log.txt").read_bytes()


def killed_run(world, folder, kills, chance, counts):
    """One run, killed up to `kills` times and resumed each time, to its end."""
    for _ in range(kills):
        aimed = chance.random() < IN_A_SAVE
        ended = kill_somewhere(start(world, folder, "--resume"), folder, chance, aimed)
        take_log(folder, counts)
        if ended == "over":
            return
        counts[ended] += 1
        counts["aimed"] += aimed
    finish(world, folder, "--resume")
    take_log(folder, counts)


def take_log(folder, counts):
    log = (folder / "log.txt").read_text(encoding="utf-8")
    counts["resumes"] += "goes on from the checkpoint" in log
    counts["damaged"] += "damaged (" in log


def crash(kills, seed, folder):
    """Kill real runs `kills` times; returns the counts: aimed at a save, died in one or elsewhere, resumes, runs, identical, damaged."""
    world, chance, counts = make_world(folder), random.Random(seed), Counter()
    finish(world, folder / "whole")
    wanted = digests(folder / "whole")
    while (done := counts["in a save"] + counts["elsewhere"]) < kills:
        run = folder / f"run-{counts['runs']}"
        killed_run(world, run, min(KILLS_A_RUN, kills - done), chance, counts)
        counts["runs"] += 1
        counts["identical"] += digests(run) == wanted
        print(f"{dict(counts)}", flush=True)
    return counts


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="processes to kill (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        counts = crash(args.kills, args.seed, Path(folder))
    kills = counts["in a save"] + counts["elsewhere"]
    print(
        f"{kills} kills, {counts['aimed']} aimed at a save, {counts['in a save']} inside one; "
        f"{counts['resumes']} resumes of {counts['runs']} runs, {counts['damaged']} found damage; "
        f"{counts['identical']} ended with the bytes of the run that was never stopped"
    )
    return 0 if counts["identical"] == counts["runs"] else 3


if __name__ == "__main__":
    sys.exit(main())
