"""Train an adapter, stop when validation stops improving, keep the best:

  python train_with_early_stopping.py --model models/HyperCLOVAX-SEED-Think-32B-Text-8bit --train \\
      --data data_solverx_cpt --adapter-path adapters_solverx_cpt_hcx

Flags and YAML keys are mlx-lm's (`mlx_lm lora`), and more where mlx-lm has none or wants YAML. The adapter folder gets
adapters.safetensors (the best, not the last), adapter_config.json, curve.jsonl and, last, summary.json.

SIGINT (Ctrl-C) and SIGTERM save a checkpoint in <adapter-path>/checkpoints and print the command that goes on; a second
one leaves at once. Whatever stopped a run, --resume goes on from its last whole checkpoint, and it ends with the same
bytes as if it had never stopped. Where data, model, settings, versions or machine changed, it says what, and refuses;
--overwrite starts again, and the earlier adapter stays until the new run has one of its own.

Exit codes: 0 trained, 1 bad input, 2 bad usage, 4 diverged, 75 stopped, resumable.
"""

import argparse
import sys

from lab import signals
from lab.cli import finish

WHOLE, RATE = {"type": int}, {"type": float}
SWITCH = {"action": "store_true", "default": None}
FLAGS = {  # flag: (options, help); None stands for "not given", so that YAML and defaults can speak
    "--model": ({}, "folder of the (converted) model"),
    "--train": (SWITCH, "train"),
    "--data": ({}, "folder with train.jsonl, valid.jsonl and, for --test, test.jsonl"),
    "--fine-tune-type": ({"choices": ["lora", "dora", "full"]}, "what is trained (lora)"),
    "--rank": (WHOLE, "rank of LoRA and DoRA (8)"),
    "--scale": (RATE, "the low-rank product is multiplied by this (20)"),
    "--alpha": (RATE, "PEFT's way to say it: the scale is alpha / rank"),
    "--dropout": (RATE, "dropout before the low-rank product (0)"),
    "--target-modules": ({}, "layers that get adapters: q_proj,v_proj or full names; all-linear (all-linear)"),
    "--optimizer": (
        {"choices": ["adam", "adamw", "muon", "sgd", "adafactor"]},
        "optimizer (adam, bias-corrected)",
    ),
    "--weight-decay": (RATE, "decoupled weight decay, of adamw and others (the optimizer's own)"),
    "--mask-prompt": (SWITCH, "learn the answers only, all assistant turns of a dialogue"),
    "--num-layers": (WHOLE, "how many layers from the last get adapters, -1 for all (-1)"),
    "--batch-size": (WHOLE, "sequences a step (4)"),
    "--iters": (WHOLE, "optimizer updates, each of --grad-accumulation-steps batches (1000)"),
    "--epochs": (RATE, "passes over the training set, instead of --iters"),
    "--val-batches": (WHOLE, "validation batches, -1 for the whole set (-1)"),
    "--learning-rate": (RATE, "the rate, or the peak of a schedule (1e-5)"),
    "--lr-schedule": (
        {"choices": ["constant", "linear", "cosine", "step"]},
        "course of the rate over the run, counted in optimizer updates, not batches (constant)",
    ),
    "--warmup": (WHOLE, "optimizer updates over which the rate first rises (0)"),
    "--final-learning-rate": (RATE, "where linear and cosine end (0)"),
    "--decay-rate": (RATE, "what step multiplies the rate by (0.1)"),
    "--decay-every": (WHOLE, "optimizer updates between two steps (a third of the run)"),
    "--steps-per-report": (WHOLE, "updates between lines (10)"),
    "--steps-per-eval": (WHOLE, "updates between validations (50)"),
    "--grad-accumulation-steps": (WHOLE, "batches an update (1)"),
    "--resume-adapter-file": ({}, "start from this adapter; rank, scale and layers are inherited from its folder"),
    "--adapter-path": ({}, "folder of the new adapter (adapters)"),
    "--save-every": (WHOLE, "also keep a copy and a checkpoint every N updates, 0 for none (0)"),
    "--test": (SWITCH, "measure the loss on test.jsonl at the end"),
    "--test-batches": (WHOLE, "test batches, -1 for the whole set (-1)"),
    "--max-seq-length": (WHOLE, "longer sequences are cut, and counted aloud (2048)"),
    "--grad-checkpoint": (SWITCH, "recompute activations to save memory"),
    "--clear-cache-threshold": (WHOLE, "bytes of allocator cache above which it is emptied, 0 for never (0)"),
    "--report-to": ({}, "tensorboard, wandb or swanlab, where installed; several with commas"),
    "--project-name": ({}, "project name at wandb or swanlab"),
    "--seed": (WHOLE, "seed of data order, adapter start and dropout (0)"),
    "--trust-remote-code": (SWITCH, "refused: no code that comes with a model is ever run"),
    "--patience": (WHOLE, "evaluations without improvement before stopping, 0 for never (5)"),
    "--min-delta": (RATE, "what counts as improvement, in nats/token or as a share (0)"),
    "--early-stop-on": (
        {"choices": ["loss", "recall"]},
        "validation loss, or recall of <data>/recall.jsonl (loss)",
    ),
    "--memory-check": (
        {"choices": ["refuse", "warn"]},
        "what to do, before the weights load, with a run that will not fit into memory (refuse)",
    ),
    "--max-grad-norm": (RATE, "gradients are clipped to this norm, 0 for never (1)"),
    "--guard-data": ({}, "JSONL file of general rows; the loss on them is followed beside validation"),
    "--max-forgetting": (RATE, "how far the loss on --guard-data may rise above its start, in nats/token"),
    "--guard-action": (
        {"choices": ["stop", "restore"]},
        "beyond that: stop, or step back to the last adapter inside it and go on at half the rate (stop)",
    ),
    "--resume": (SWITCH, "go on from the last checkpoint of --adapter-path; same bytes as a run never stopped"),
    "--overwrite": (SWITCH, "replace the run in --adapter-path; with --resume, only where it cannot go on"),
    "--keep-last": (WHOLE, "checkpoints kept (2)"),
    "--output": ({}, "where the summary goes (<adapter-path>/summary.json)"),
}


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", help="YAML file with any of these settings; flags win")
    for flag, (options, text) in FLAGS.items():
        parser.add_argument(flag, help=text, **options)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    from lab import ranks, tuning

    return ranks.run(lambda: tuning.run(args))


if __name__ == "__main__":
    signals.install()
    code = finish(main)
    signals.ending()
    sys.exit(code)
