"""What the CPU policy of lab/device.py and lab/models.py brings:  python bench/device.py --model models/...-8bit

Runs in turn, each in its own process: MLX's own BLAS and the fast one in front; quantized layers kept and dequantized at
load. Prints forward-and-backward tokens a second for a LoRA step and the ratios. Only ratios of one run mean anything.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CASES = {  # name: (environment, dequantize at load)
    "as mlx-lm does (reference BLAS, quantized)": ({"LAB_BLAS": "reference"}, False),
    "fast BLAS, quantized": ({}, False),
    "reference BLAS, dequantized": ({"LAB_BLAS": "reference"}, True),
    "fast BLAS, dequantized (this lab)": ({}, True),
}
BATCH, LENGTH = 8, 64


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/HyperCLOVAX-SEED-Think-Tiny-Text-8bit", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="a case (%(default)s)")
    parser.add_argument("--one", choices=["quantized", "dequantized"], help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def measure(model_path, dequantized, seconds):
    """Tokens a second of LoRA steps (forward, backward, update) of BATCH x LENGTH tokens."""
    from lab.device import mx  # isort: skip
    import mlx.nn as nn
    import mlx.optimizers as optim
    from mlx_lm.utils import load

    from lab import adapters, models, training

    model = models.load(model_path)[0] if dequantized else load(str(model_path))[0]
    parameters = {"rank": 8, "scale": 20.0, "dropout": 0.0}
    adapters.add_layers(model, {"fine_tune_type": "lora", "num_layers": -1, "lora_parameters": parameters})
    optimizer = optim.Adam(1e-5)
    gradient = nn.value_and_grad(model, training.summed_loss)
    tokens = mx.random.randint(0, 1000, (BATCH, LENGTH))
    places = mx.arange(BATCH * LENGTH)
    steps, started = -1, 0.0  # the first step is a warm-up
    while steps < 1 or time.perf_counter() - started < seconds:
        loss, parts = gradient(model, tokens, places, tokens.reshape(-1), mx.ones(BATCH * LENGTH))
        optimizer.update(model, parts)
        mx.eval(loss, model.trainable_parameters(), optimizer.state)
        started = time.perf_counter() if steps < 0 else started
        steps += 1
    return steps * BATCH * LENGTH / (time.perf_counter() - started)


def main(argv=None):
    args = parse_args(argv)
    if args.one:
        print(json.dumps(measure(args.model, args.one == "dequantized", args.seconds)))
        return 0
    rates = {}
    for name, (environment, dequantized) in CASES.items():
        command = [sys.executable, __file__, "--model", args.model, "--seconds", str(args.seconds)]
        command += ["--one", "dequantized" if dequantized else "quantized"]
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )
        rates[name] = float(done.stdout.splitlines()[-1])
    slowest = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"{name:45s} {rate:8.0f} tokens/s   {rate / slowest:6.1f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
