"""Questions a second beside mlx_lm.evaluate:  python bench/kmmlu.py [--python /path/to/python/with/lm_eval]

The same KMMLU prompts (of the lab's own sample, tokenizing included) through, in turn and each in its own process: this
lab; MLXLM, mlx_lm.evaluate's class, as installed (8-bit weights, MLX's own BLAS); MLXLM with our BLAS and the same
dequantized float32 weights, so that the ratio shows what batches and shared beginnings bring alone. 5 shots come in two
ways: drawn anew for each question as lm-eval does, and always the first of dev. Every contestant's log-likelihoods are
compared. Only ratios of one call mean anything; CPU time is of all threads, and waiting does not change it.

Exit codes: 0 measured, 1 a contestant failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
OURS, INSTALLED, DENSE = "this lab", "MLXLM as installed", "MLXLM, our BLAS, float32"
CASES = {
    "0 shots": (0, "lm-eval"),
    "5 shots, lm-eval's draws": (5, "lm-eval"),
    "5 shots, first of dev": (5, "first"),
}


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "models/HyperCLOVAX-SEED-Think-Tiny-Text-8bit"
    parser.add_argument("--model", default=default, help="(%(default)s)")
    parser.add_argument("--python", default=sys.executable, help="Python that has lm_eval (this one)")
    parser.add_argument("--questions", type=int, default=40, help="of one subject, at most 51 (%(default)s)")
    text = "how many of these MLXLM gets; one by one, its rate does not depend on it (%(default)s)"
    parser.add_argument("--theirs", type=int, default=12, help=text)
    parser.add_argument("--rounds", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(CASES), help="cases (all)")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def asked(folder, shots, order, limit):
    """The kmmlu.Asked of the sample's largest subject."""
    from lab import kmmlu, kmmlu_data

    subset = kmmlu_data.choose(["Sample-Geography"], kmmlu_data.sample_subjects(folder))
    files = kmmlu_data.in_folder(folder, subset, ("test", "dev"))
    items = [kmmlu_data.read_items(path, subset.task, subset.subjects[0]) for path in files.paths.values()]
    test, style = items[0][:limit], kmmlu.Style(shots, order=order)
    return kmmlu.Asked(subset.task, "sample", test, kmmlu.examples(subset.task, test, items[1], style), style)


def ours(job, subject):
    from lab import choices, models

    model, tokenizer = models.load(job["model"])

    def work():
        plan = choices.Plan([choices.Question.of(*found) for found in subject.prompts(tokenizer)], 32)
        found = {}
        for numbers, values in choices.scored(model, plan):
            found.update(zip(numbers, values, strict=True))
        return [found[number] for number in sorted(found)], plan.tokens()

    return work


def theirs(job, subject):
    if job["dense"]:
        from lab import models
    from lm_eval.api.instance import Instance
    from mlx_lm.evaluate import MLXLM

    from lab.kmmlu import prompt

    lm = MLXLM(job["model"], use_chat_template=False)
    if job["dense"]:
        lm._model, _ = models.load(job["model"])

    def work():
        pairs = zip(subject.items, subject.examples, strict=True)
        texts = [prompt(subject.task, lm.tokenizer, *pair, subject.style) for pair in pairs]
        asks = [(text, f" {choice}") for text in texts for choice in subject.task.choices]
        found = lm.loglikelihood([Instance("loglikelihood", {}, ask, 0) for ask in asks])
        number = len(subject.task.choices)
        return [[found[at + place][0] for place in range(number)] for at in range(0, len(found), number)], None

    return work


def one(name, job):
    """Measure one contestant: a warm-up of three questions, then all of them; prints JSON."""
    make = ours if name == OURS else theirs
    make(job, asked(job["data"], job["shots"], job["order"], 3))()
    number = job["questions"] if name == OURS else job["theirs"]
    work = make(job, asked(job["data"], job["shots"], job["order"], number))
    wall, cpu = time.perf_counter(), time.process_time()
    values, tokens = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"wall": wall / len(values), "cpu": cpu / len(values), "values": values, "tokens": tokens}))


def run(name, job, python):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    command = [python if name != OURS else sys.executable, __file__, "--one", name, json.dumps(job)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {name}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(case, args, folder):
    """Run the contestants of a case in turn, and print their figures and ratios."""
    shots, order = CASES[case]
    job = {"model": args.model, "data": str(folder), "shots": shots, "order": order, "questions": args.questions}
    job["theirs"] = min(args.theirs, args.questions)
    best = {}
    for _ in range(args.rounds):
        for name in (OURS, DENSE, INSTALLED):
            found = run(name, {**job, "dense": name == DENSE}, args.python)
            before = best.setdefault(name, found)
            best[name] |= {key: min(before[key], found[key]) for key in ("wall", "cpu")}
    given, every = best[OURS]["tokens"]
    print(f"{case}: {args.questions} questions, {every} tokens of prompts, of which this lab computes {given}")
    for name, found in best.items():
        rates = (f"{1 / found[key]:8.2f}" for key in ("wall", "cpu"))
        ratios = (f"{found[key] / best[OURS][key]:6.1f}x" for key in ("wall", "cpu"))
        print("  {:26s} {} questions/s {} for a CPU second; this lab is".format(name, *rates), *ratios)
    worst = max(
        abs(a - b)
        for x, y in zip(best[OURS]["values"], best[DENSE]["values"], strict=False)
        for a, b in zip(x, y, strict=True)
    )
    print(f"  largest difference of a log-likelihood, same weights: {worst:.1e}", flush=True)


def main(argv=None):
    args = parse_args(argv)
    if args.one:
        one(args.one[0], json.loads(args.one[1]))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "prepare_kmmlu_sample.py"), "--output-dir", folder]
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
        for case in args.only or CASES:
            compare(case, args, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
