"""Where the time of a training step on the CPU goes:  python bench/step.py  [--rows 8] [--tokens 160]

One update of the embedded model (LoRA rank 8 on all linear layers, a third of the tokens trained) and, in turn with it,
its parts alone at the same shapes, forward and backward: matrix products, what lies around them, the optimizer, and the
building of the graph in Python. CPU time of all threads, so that other work on the machine changes little. What the parts
do not explain is shown as the rest (sums, copies, memory that one part finds in the cache and the whole step does not).

Exit codes: 0 measured, 1 not on a CPU, 2 bad usage.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RANK, SHARE = 8, 1 / 3


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8, help="rows of the batch, B (%(default)s)")
    parser.add_argument("--tokens", type=int, default=160, help="tokens of a row, T (%(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="times each part is run, in turn (%(default)s)")
    return parser.parse_args(argv)


class SameBatch:
    """A schedule of one batch, so that every update costs the same."""

    batches_per_epoch = 1

    def __init__(self, batch, sequences):
        self.only, self.sequences = batch, sequences

    def batch(self, step):
        return self.only


def make_updates(args):
    """(training.Updates on one random batch, its llama)."""
    import numpy as np

    from lab import adapters, models, training
    from lab.batches import padded
    from lab.chat import Sequence
    from lab.hub import TINY
    from lab.settings import resolve

    lora = {"rank": RANK, "scale": 20.0, "dropout": 0.0}
    given = {
        "model": str(TINY),
        "data": "-",
        "batch_size": args.rows,
        "optimizer": "adam",
        "lora_parameters": lora,
    }
    settings, _ = resolve(given)
    draw = np.random.default_rng(0)
    marks = np.arange(args.tokens + 1) >= args.tokens * (1 - SHARE)
    size = args.tokens + 1
    rows = [Sequence(draw.integers(0, 2000, size).astype(np.int32), marks) for _ in range(args.rows)]
    model, _ = models.load(TINY)
    adapters.add_layers(model, vars(settings))
    model.train()
    schedule = SameBatch(padded(rows, range(args.rows)), rows)
    return training.Updates(model, training.make_optimizer(settings), schedule, settings), model


def products(args, model, trained):
    """The step's matrix products, {(shape, shape): times}: activations and their gradients, adapters, scores, head."""
    from lab import cpu_ops

    config, positions = model.args, args.rows * args.tokens
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    sides = [(hidden, (heads + 2 * groups) * size), (heads * size, hidden), (hidden, 2 * inner), (inner, hidden)]
    listed = []
    for inputs, outputs in sides:
        low = RANK * (3 if outputs == sides[0][1] else 2 if outputs == 2 * inner else 1)
        listed += [
            (layers, (positions, inputs), (inputs, outputs)),
            (layers, (positions, outputs), (outputs, inputs)),
        ]
        listed += [
            (2 * layers, (positions, inputs), (inputs, low)),
            (2 * layers, (positions, low), (low, outputs)),
        ]
        listed += [
            (layers, (inputs, positions), (positions, low)),
            (layers, (low, positions), (positions, outputs)),
        ]
    for span in cpu_ops.spans(args.tokens, heads // groups):
        batch, rows, keys = (args.rows, groups), (span.last - span.first) * span.repeats, span.last
        listed += [(2 * layers, (*batch, rows, size), (*batch, size, keys))]
        listed += [(2 * layers, (*batch, rows, keys), (*batch, keys, size))]
        listed += [(2 * layers, (*batch, keys, rows), (*batch, rows, size))]
    vocabulary = config.vocab_size
    listed += [(1, (trained, hidden), (hidden, vocabulary)), (1, (trained, vocabulary), (vocabulary, hidden))]
    found = Counter()
    for times, first, second in listed:
        found[first, second] += times
    return found


def both_ways(function, *shapes):
    """A function that computes `function` of random arrays and its gradients."""
    from lab.device import mx

    arrays = [mx.random.normal(shape) for shape in shapes]
    given = mx.ones_like(function(*arrays))

    def run():
        outputs, gradients = mx.vjp(function, arrays, [given])
        mx.eval(outputs, gradients)

    return run


def parts_of(args, updates, model):
    """{part: (times, function)} of the step."""
    from lab import cpu_ops, cpu_pointwise, training
    from lab.device import mx

    config, layers = model.args, len(model.layers)
    positions, trained = args.rows * args.tokens, len(updates.schedule.only.trained()[0])
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    targets = mx.zeros((trained,), dtype=mx.int32)
    parts = {}
    for (first, second), times in products(args, model, trained).items():
        a, b = mx.random.normal(first), mx.random.normal(second)
        parts[f"product {first} x {second}"] = (times, lambda a=a, b=b: mx.eval(a @ b))
    queries = (args.rows, groups, heads // groups, args.tokens, size)
    keys = (args.rows, groups, args.tokens, size)
    parts["attention, its products included"] = (
        layers,
        both_ways(lambda q, k, v: cpu_ops.attention(q, k, v, size**-0.5), queries, keys, keys),
    )
    inner = (positions, config.intermediate_size)
    parts["SwiGLU"] = (layers, both_ways(cpu_pointwise.swiglu, inner, inner))
    norm = model.layers[0].input_layernorm
    parts["norms"] = (2 * layers + 1, both_ways(norm, (positions, config.hidden_size)))
    rope = model.layers[0].self_attn.rope
    parts["rotary positions"] = (layers, both_ways(rope, (args.rows, heads + groups, args.tokens, size)))
    loss = (trained, config.vocab_size)
    parts["cross-entropy"] = (1, both_ways(lambda logits: cpu_pointwise.cross_entropy(logits, targets), loss))
    parts["residual sums"] = (2 * layers, both_ways(mx.add, *[(positions, config.hidden_size)] * 2))
    vector = updates.joining.join(model.trainable_parameters())
    mx.eval(vector)
    parts["optimizer"] = (1, lambda: mx.eval(updates.optimizer.apply_gradients(vector, vector)))
    batch = training.arrays(updates.schedule.only)
    parts["graph, in Python"] = (1, lambda: updates.loss_and_gradient(model, *batch))
    return parts


def measure(parts, repeats):
    """{part: median CPU milliseconds a step}, all parts in turn `repeats` times."""
    taken = {name: [] for name in parts}
    for _ in range(repeats + 2):
        for name, (times, function) in parts.items():
            started = time.process_time()
            function()
            taken[name].append(1000 * times * (time.process_time() - started))
    return {name: statistics.median(values[2:]) for name, values in taken.items()}


def show(found, flops, trained):
    """The table: a line for each part, its milliseconds and its share of the whole step."""
    whole = found.pop("whole update")
    multiplied = {name: value for name, value in found.items() if name.startswith("product")}
    scores = sum(value for name, value in multiplied.items() if name.count(",") > 2)
    lines = {"matrix products": sum(multiplied.values())}
    lines["attention, but for its products"] = max(0.0, found.pop("attention, its products included") - scores)
    lines |= {name: value for name, value in found.items() if name not in multiplied}
    lines["the rest"] = whole - sum(lines.values())
    for name, value in lines.items():
        print(f"{name:34s}{value:9.1f} ms{value / whole:7.0%}")
    print(
        f"{'whole update':34s}{whole:9.1f} ms CPU time; {trained / whole * 1000:.0f} trained tokens for a CPU second"
    )
    rate = flops / whole / 1e6
    print(f"{rate:.0f} GFLOP for a CPU second; the products alone: {flops / lines['matrix products'] / 1e6:.0f}")


def main(argv=None):
    args = parse_args(argv)
    from lab.device import backend

    if backend() != "cpu":
        print(f"error: this profile is of the CPU's path, and MLX computes on {backend()} here", file=sys.stderr)
        return 1
    updates, model = make_updates(args)
    parts = {"whole update": (1, lambda: updates(0)), **parts_of(args, updates, model)}
    found = measure(parts, args.repeats)
    trained = int(updates.schedule.only.weights.sum())
    flops = 0
    for (first, second), times in products(args, model, trained).items():
        batches = first[0] * first[1] if len(first) == 4 else 1
        flops += 2 * times * batches * first[-2] * first[-1] * second[-1]
    show(found, flops, trained)
    return 0


if __name__ == "__main__":
    sys.exit(main())
