"""How fast answers come in batches:  python bench/generate.py

Asks the same general questions in turn, each case in a process of its own: `mlx_lm.generate` one by one as it is installed
(its own BLAS on the CPU, weights quantized), and this lab at 1, 5, 10 and 32 answers a time. Prints answered tokens a
second and the ratios, to this lab one by one and to mlx_lm; the SOLAR seed reports 7.9x for its batches. On the CPU the
seconds are the process's own CPU time, whatever else the machine does. The answers of all cases are compared: greedy is
greedy. Only ratios of one run mean anything; --rounds takes the median of several.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ONE_BY_ONE, BATCHES = "mlx_lm.generate, one by one", (1, 5, 10, 32)
SEED = 7.9  # Source: the SOLAR seed's own figure, on an H100


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/HyperCLOVAX-SEED-Think-Tiny-Text-8bit", help="(%(default)s)")
    parser.add_argument("--questions", type=int, default=96, help="how many (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=64, help="longest answer (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of all cases in turn (%(default)s)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=list(BATCHES), help="(1 5 10 32)")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def clock():
    """A function that gives seconds: of CPU time where MLX computes on the CPU, of the wall clock elsewhere."""
    import mlx.core as mx

    return time.process_time if mx.default_device() == mx.Device(mx.cpu) else time.perf_counter


def questions(number):
    """`number` general questions of mixed length, evenly spread over the facts."""
    from lab.general import load_facts, split_general

    asked = [split_general(fact).train[0] for fact in load_facts(ROOT / "data_general") if not fact.judge]
    return [asked[place * len(asked) // number] for place in range(number)]


def by_mlx_lm(args):
    """(answers, seconds, tokenizer) of stock mlx_lm."""
    from mlx_lm import generate, load

    model, tokenizer = load(args.model)
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
        for text in questions(args.questions)
    ]
    generate(model, tokenizer, prompts[0], max_tokens=2)
    now = clock()
    started = now()
    said = [generate(model, tokenizer, prompt, max_tokens=args.max_tokens) for prompt in prompts]
    return said, now() - started, tokenizer


def by_lab(args, batch_size):
    """(answers, seconds, tokenizer) of this lab."""
    from lab import models

    model, tokenizer = models.load(args.model)
    asked = questions(args.questions)
    models.answer(model, tokenizer, asked[:1], 2)
    now = clock()
    started = now()
    said = models.answer(model, tokenizer, asked, args.max_tokens, batch_size)
    return said, now() - started, tokenizer


def measured(args):
    """One case in this process: {"answers", "tokens_per_second"}."""
    case = args.case
    said, seconds, tokenizer = by_mlx_lm(args) if case == ONE_BY_ONE else by_lab(args, int(case))
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False)) + 1 for text in said)  # and the end token
    return {"answers": said, "tokens_per_second": tokens / seconds}


def main(argv=None):
    args = parse_args(argv)
    if args.case:
        print(json.dumps(measured(args)))
        return 0
    cases = [ONE_BY_ONE, *map(str, args.batch_sizes)]
    rates, answers = {case: [] for case in cases}, {}
    shared = ["--model", args.model, "--questions", str(args.questions), "--max-tokens", str(args.max_tokens)]
    for _ in range(args.rounds):
        for case in cases:
            command = [sys.executable, __file__, *shared, "--case", case]
            environment = {**os.environ, **({"LAB_BLAS": "reference"} if case == ONE_BY_ONE else {})}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
            found = json.loads(done.stdout.splitlines()[-1])
            rates[case].append(found["tokens_per_second"])
            answers[case] = found["answers"]
    report(cases, {case: statistics.median(values) for case, values in rates.items()}, answers)
    return 0


def report(cases, rates, answers):
    """Print the table: tokens/s, ratios, and how many answers are those of this lab one by one."""
    alone = cases[1]
    for case in cases:
        name = case if case == ONE_BY_ONE else f"this lab, {case} at a time"
        same = sum(map(str.__eq__, answers[case], answers[alone]))
        ratios = f"{rates[case] / rates[alone]:5.1f}x of {alone} at a time  {rates[case] / rates[cases[0]]:6.1f}x of mlx_lm"
        print(f"{name:30s} {rates[case]:8.0f} tokens/s  {ratios}  same answers {same}/{len(answers[alone])}")
    print(f"beside: the SOLAR seed's batches, {SEED}x of one at a time (H100)")


if __name__ == "__main__":
    sys.exit(main())
