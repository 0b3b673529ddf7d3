"""Training speed and memory beside other trainers:  python bench/train.py  [--quick] [--torch-python /path/to/python]

In turn, each in its own process, round after round, on the embedded 8-bit model and on a random llama of 25M parameters:
our trainer; `mlx_lm lora` as installed; `mlx_lm lora` with our BLAS in front; PEFT + torch (skipped aloud where that
Python has no torch and peft). Same rows, rank, modules, batch size, optimizer and masked prompts. Prints trained tokens
a second and peak memory as ratios. Only ratios of one call mean anything, and on a machine with other work not even all
of those: look at trained tokens for a second of CPU time (of all threads and ranks), which waiting does not change.

--cuda: on an NVIDIA GPU with MLX's CUDA backend, a SOLAR-10.7B-shaped random model in 8 bit and in bf16, rows of 512
tokens, beside PEFT + torch in bf16.

Exit codes: 0 measured, 1 a contestant failed, 2 bad usage.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]
EMBEDDED = ROOT / "models" / "HyperCLOVAX-SEED-Think-Tiny-Text-8bit"
OURS, OURS_RANKS = "ours", "ours, a rank a core"
PEFT = "PEFT + torch"


@dataclass(frozen=True)
class Contestant:
    """`function` of bench/contestants.py, run by `python` with `job` over the model's own job, on so many ranks."""

    function: str
    python: str = sys.executable
    job: dict = field(default_factory=dict)
    ranks: int = 1


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test: few steps, one round, embedded model")
    parser.add_argument("--rounds", type=int, default=3, help="each contestant runs this often (%(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="measured steps a run (%(default)s)")
    parser.add_argument("--warmup", type=int, default=12, help="steps before them (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=40, help="a run measures no longer than this (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="rows a step (%(default)s)")
    parser.add_argument("--rank", type=int, default=8, help="LoRA rank, all linear layers (%(default)s)")
    parser.add_argument("--models", nargs="+", choices=["embedded", "llama-25m"], help="(both)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="contestants whose name holds one of these words"
    )
    parser.add_argument("--torch-python", default=sys.executable, help="Python that has torch and peft (this one)")
    parser.add_argument("--cuda", action="store_true", help="SOLAR-10.7B shape on an NVIDIA GPU instead")
    parser.add_argument("--output", type=Path, help="also write everything measured to this JSON file")
    return parser.parse_args(argv)


def contestants(args):
    """{name: Contestant} for this machine; what cannot run is left out aloud."""
    found = {OURS: Contestant("ours")}
    if not args.cuda:
        found[OURS_RANKS] = Contestant("ours", ranks=os.cpu_count())
    found["mlx_lm lora, as installed"] = Contestant("mlx_lm", job={"fast_blas": False})
    if not args.cuda:
        found["mlx_lm lora, our BLAS"] = Contestant("mlx_lm", job={"fast_blas": True})
    probe = subprocess.run([args.torch_python, "-c", "import torch, peft"], capture_output=True, text=True)
    if probe.returncode:
        reason = (probe.stderr.strip().splitlines() or ["cannot run"])[-1]
        print(f"skipped: {PEFT}: {args.torch_python}: {reason}; pip install -r requirements-dev.txt")
    else:
        found[PEFT] = Contestant("peft", args.torch_python)
        if not args.cuda:  # two threads that wait for each other lose most on a machine with other work
            found[f"{PEFT}, one thread"] = Contestant("peft", args.torch_python, {"threads": 1})
    if args.only:
        found = {name: one for name, one in found.items() if any(word in name for word in args.only)}
    return found


def make_job(args, folder, shape, bits):
    """Make model, rows and settings below `folder`; returns the job that all contestants share."""
    import contestants as side
    import made

    from lab.models import load_tokenizer

    model = (
        EMBEDDED if shape == "embedded" else made.write_model(folder / f"{shape}-{bits}", shape, EMBEDDED, bits)
    )
    longest = 512 if args.cuda else 300
    data, number = folder / f"rows-{longest}", 10 * (args.warmup + args.steps)
    if not data.exists():
        knowledge, tokenizer = ROOT / "solverx_knowledge.jsonl", load_tokenizer(EMBEDDED)
        made.write_rows(data, knowledge, tokenizer, number, 512 if args.cuda else 1, longest, seed=0)
    job = {"model": str(model), "data": str(data), "rate": 1e-4, "scale": 20.0, "seed": 0, "cuda": args.cuda}
    job.update(rank=args.rank, batch_size=args.batch_size, warmup=args.warmup, steps=args.steps)
    job.update(seconds=args.seconds, threads=os.cpu_count(), rows=str(folder / f"rows-{longest}.npz"))
    side.store_rows(side.sequences(job), job["rows"])
    job["dense"] = str(made.write_dense(folder / f"{shape}-dense", model, "bfloat16" if args.cuda else "float32"))
    job["mlx_lm_config"] = str(write_mlx_lm_config(folder / f"{shape}-{bits}.yaml", job))
    return job


def write_mlx_lm_config(path, job):
    """The same run in `mlx_lm lora`'s own YAML; the run ends when enough is measured, not by `iters`."""
    content = {
        "model": job["model"],
        "data": job["data"],
        "train": True,
        "seed": job["seed"],
        "num_layers": -1,
        "batch_size": job["batch_size"],
        "iters": 1_000_000,
        "val_batches": 1,
        "steps_per_eval": 1_000_000,
        "save_every": 1_000_000,
        "steps_per_report": 1,
        "learning_rate": job["rate"],
        "optimizer": "adam",
        "optimizer_config": {"adam": {"bias_correction": True}},
        "lora_parameters": {"rank": job["rank"], "scale": job["scale"], "dropout": 0.0},
        "mask_prompt": True,
        "adapter_path": str(path.with_suffix(".adapter")),
    }
    path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    return path


def run(contestant, job, folder, **environment):
    """What one contestant measured, in its own process. Raises RuntimeError with its last lines where it failed."""
    path = folder / "job.json"
    path.write_text(json.dumps({**job, **contestant.job}), encoding="utf-8")
    command = [contestant.python, str(ROOT / "bench" / "contestants.py"), contestant.function, str(path)]
    if contestant.ranks > 1:
        command = [sys.executable, "-m", "lab.launch", "--ranks", str(contestant.ranks), "--", *command]
    threads = str({**job, **contestant.job}["threads"])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, **environment}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{contestant.function} failed:\n" + "\n".join(done.stderr.splitlines()[-12:]))
    return json.loads(done.stdout.splitlines()[-1])


def measure(args, job, folder):
    """({name: [result of each round]}, [GFLOP/s of matrix products on all cores, each round]), the contestants in turn."""
    found, taking_part, products = {}, contestants(args), []
    for number in range(args.rounds):
        for name, contestant in taking_part.items():
            result = run(contestant, job, folder)
            result["tokens_per_second"] = result["trained"] / result["seconds"]
            result["tokens_per_cpu_second"] = result["trained"] / result["cpu_seconds"]
            found.setdefault(name, []).append(result)
            print(f"  round {number + 1}: {name}: {result['tokens_per_second']:.0f}", file=sys.stderr, flush=True)
        if not args.cuda:
            one_core = run(Contestant("gemm"), job, folder, OPENBLAS_NUM_THREADS="1")["gflops"]
            products.append(one_core * os.cpu_count())
    return found, products


def spread(values):
    """ "median (least-most)" of ratios."""
    return f"{statistics.median(values):.2f}x ({min(values):.2f}-{max(values):.2f})"


def ratios(found, mine, theirs, key):
    """`mine` over `theirs`, round by round."""
    return [one[key] / other[key] for one, other in zip(found[mine], found[theirs], strict=True)]


def show(title, found, products):
    """The table of one model: medians over the rounds, and ours over each, every ratio taken within a round."""
    own = [name for name in (OURS, OURS_RANKS) if name in found]
    columns = "".join(f"{f'{name} / this':>30s}" for name in own)
    print(
        f"\n{title}\n{'':28s}{'trained tokens/s':>17s}{columns}{'/CPU s':>8s}{'peak MB':>9s}{'ours / this':>12s}"
    )
    for name, results in found.items():
        rate, by_cpu = (
            statistics.median(result[f"tokens_per_{unit}"] for result in results)
            for unit in ("second", "cpu_second")
        )
        peak = statistics.median(result["peak_bytes"] for result in results) / 1e6
        line = f"{name:28s}{rate:17.0f}"
        line += "".join(f"{spread(ratios(found, mine, name, 'tokens_per_second')):>30s}" for mine in own)
        memory = [statistics.median(ratios(found, mine, name, "peak_bytes")) for mine in own[:1]]
        print(line + f"{by_cpu:8.0f}{peak:9.0f}" + "".join(f"{ratio:11.2f}x" for ratio in memory))
    for name in own if products else []:
        reached = [result["flops"] / result["seconds"] / 1e9 for result in found[name]]
        share = statistics.median(rate / most for rate, most in zip(reached, products, strict=True))
        most = statistics.median(products)
        print(
            f"{name}: {statistics.median(reached):.0f} GFLOP/s of needed work, {share:.0%} of the cores' {most:.0f}"
        )
    for name in own:
        wasted = 1 - sum(one["real"] for one in found[name]) / sum(one["computed"] for one in found[name])
        print(f"{name}: {wasted:.1%} of the positions are padding")


def main(argv=None):
    args = parse_args(argv)
    if args.quick:
        args.rounds, args.steps, args.warmup, args.seconds = 1, 3, 1, 3
        args.models, args.batch_size = ["embedded"], 2
    models = [(name, 8) for name in args.models or ["embedded", "llama-25m"]]
    if args.cuda:
        models = [("solar-10.7b", 8), ("solar-10.7b", None)]
    everything = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for shape, bits in models:
            job = make_job(args, folder, shape, bits)
            title = f"{shape}, {f'{bits} bit' if bits else 'bf16'}, rank {args.rank}, batch {args.batch_size}"
            found, products = measure(args, job, folder)
            show(title, found, products)
            everything[title] = {"contestants": found, "product_gflops": products}
    if args.output:
        args.output.write_text(json.dumps(everything, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
