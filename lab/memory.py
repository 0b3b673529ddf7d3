"""What a training run will hold in memory at its peak, said before the weights load; refused where it cannot fit.

The sum of what is alive at once (letters: B sequences, T tokens, N trained positions, V vocabulary, a: bytes a number):

- weights, as they lie on this device: as stored, or 4 bytes a number where the CPU computes in float32;
- the trained part P, 4 bytes a number, times: itself, its gradient (twice with accumulation), the optimizer's moments,
  the best adapter so far;
- activations: each trained layer keeps, for the backward pass, 2.5 numbers for every output of its linear parts (an output
  is kept, and what is made of it: rotated queries, the gate's sigmoid, the product, the residual sum and its norm), DoRA
  1.1 more, and the attention's T probabilities a head. Layers below the first trained one keep nothing. With gradient
  checkpointing a layer keeps two hidden states and is computed again;
- the work at hand: a layer and its attention's scores, and the largest of three that are not there at once: the logits,
  4 numbers of 4 bytes for each of N x V (logits, softmax, two for the gradient; at trained positions alone where
  training.logits_at can); the attention's backward pass, two more scores; and, with checkpointing, the backward pass
  through a layer computed again, 16 numbers an output of its widest part.

The factors are fitted to measured peaks of llama and Gemma-2 models on the CPU, on the high side; `python bench/memory.py` measures
them again. Not measured: GPUs, whose fused kernels should keep less.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from lab import adapters
from lab.batches import PAD_TO
from lab.cli import LabError
from lab.device import backend, computes_in_float32, mx
from lab.skeletons import linear_outputs, size_of, skeleton, weight_bytes
from lab.training import HEAD_APART

GB = 1e9
KEPT, KEPT_DORA, KEPT_CHECKPOINTED, AGAIN, SCORES, LOGITS = 2.5, 1.1, 2, 16, 2, 4
CPU_STEP = {
    "lora": 1.32,
    "dora": 1.1,
    "checkpointed": 1.18,
}  # lab.cpu_llama keeps more for the backward pass, also below the first trained layer
# Gemma-2: its capped logits are there twice as often, and its layers have two norms more
LOGITS_CAPPED, CPU_STEP_CAPPED = 8, {**CPU_STEP, "dora": 1.25, "checkpointed": 1.35, "full": 1.3}
MOMENTS = {"adam": 2, "adamw": 2, "adafactor": 1, "muon": 1, "sgd": 1}  # copies of the trained part
PROCESS = 0.15 * GB  # Python and its libraries
CGROUP = Path("/sys/fs/cgroup/memory.max")
SHORTEST = 64  # no shorter --max-seq-length is proposed


@dataclass(frozen=True)
class Shape:
    """The largest batch of a run: B `rows` of T `tokens`; `counts` are the most trained positions that single rows have."""

    rows: int
    tokens: int
    counts: tuple

    @property
    def trained(self):
        return sum(self.counts[: self.rows])


def largest_batch(sequences, batch_size):
    """An upper bound for every batch of `sequences`: the longest length, the most trained positions."""
    longest = max(len(sequence) for sequence in sequences) - 1
    counts = sorted((int(sequence.trained[1:].sum()) for sequence in sequences), reverse=True)
    return Shape(min(batch_size, len(sequences)), -(-longest // PAD_TO) * PAD_TO, tuple(counts[:batch_size]))


@dataclass(frozen=True)
class Need:
    """Bytes at the peak, by what they are for."""

    weights: float
    trained: float
    activations: float
    working: float

    @property
    def total(self):
        return self.weights + self.trained + self.activations + self.working + PROCESS

    def words(self):
        parts = {"weights": self.weights, "adapter and optimizer": self.trained}
        parts |= {"activations": self.activations, "logits or the layer at work": self.working}
        return ", ".join(f"{name} {size / GB:.2f}" for name, size in parts.items())


def estimate(model, settings, shape):
    """The Need of training `model`, a skeleton that has its adapter, on batches of at most `shape`."""
    number = 4 if computes_in_float32() else 2
    full = settings.fine_tune_type == "full"
    trained = size_of(model.trainable_parameters()) * (number if full else 4)  # adapters are float32 everywhere
    weights = weight_bytes(model, settings.model) - (trained if full else 0)
    kind = "checkpointed" if settings.grad_checkpoint else settings.fine_tune_type
    own = (CPU_STEP_CAPPED if _capped(model) else CPU_STEP).get(kind, 1.0) if number == 4 else 1.0
    kept, working = (own * size for size in _step(model, settings, shape, number))
    return Need(weights, trained * _copies(settings), kept, working)


def _copies(settings):
    gradients = 1 + (settings.grad_accumulation_steps > 1)
    return 1 + gradients + MOMENTS[settings.optimizer] + 1


def _step(model, settings, shape, number):
    """Bytes that the forward pass leaves for the backward pass, and bytes of the work at hand; `number`: bytes of one."""
    args, again = model.args, settings.grad_checkpoint
    outputs = linear_outputs(model.layers[0], getattr(args, "num_experts_per_tok", 1) or 1)
    scores = args.num_attention_heads * shape.tokens
    factor = KEPT + (KEPT_DORA if settings.fine_tune_type == "dora" else 0)
    layer = factor * sum(outputs) + scores + _ranks(model.layers[-1])
    kept = KEPT_CHECKPOINTED * args.hidden_size if again else layer
    layers = len(model.layers) - _first_trained(model)
    token = number * shape.rows * shape.tokens
    largest = max(token * SCORES * scores, token * AGAIN * max(outputs) * again, _logits(model, shape))
    return token * layers * kept, token * (layer + scores) + largest


def _first_trained(model):
    """The number of the first layer that gradients reach; 0 where something outside the layers is trained."""
    inside = [size_of(layer.trainable_parameters()) for layer in model.layers]
    everything = sum(inside) == size_of(model.trainable_parameters())
    return next((place for place, size in enumerate(inside) if size), 0) if everything else 0


def _ranks(layer):
    """The sum of the ranks of a layer's adapters: what passes between the low-rank matrices."""
    return sum(part.lora_a.shape[-1] for _, part in layer.named_modules() if hasattr(part, "lora_a"))


def _logits(model, shape):
    positions = shape.trained if isinstance(model, HEAD_APART) else shape.rows * shape.tokens
    return 4 * (LOGITS_CAPPED if _capped(model) else LOGITS) * positions * model.args.vocab_size


def _capped(model):
    return hasattr(model, "final_logit_softcapping")


def available():
    """Bytes that training may use here: the GPU's (what Metal recommends, on a Mac), or the machine's or container's."""
    info = mx.device_info()
    if backend() != "cpu":
        for key in ("max_recommended_working_set_size", "total_memory", "memory_size"):
            if info.get(key):
                return info[key]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CGROUP.read_text().strip() if CGROUP.is_file() else "max"
    return min(machine, int(limit)) if limit.isdigit() else machine


def check(settings, shape):
    """Say what the run will need and what there is. Raises LabError, with a remedy, where it will not fit.

    settings.memory_check "warn" says it and goes on.
    """
    need, present = _need(settings, shape), available()
    line = f"memory: about {need.total / GB:.2f} GB at the peak ({need.words()}), {present / GB:.1f} GB here"
    if need.total <= present:
        print(line)
        return
    refusal = f"{line}; {remedy(settings, shape, present)}"
    if settings.memory_check == "refuse":
        raise LabError(f"{refusal}; --memory-check warn trains all the same")
    print(f"warning: {refusal}")


def _need(settings, shape):
    model = skeleton(settings.model)
    adapters.add_layers(model, vars(settings))
    return estimate(model, settings, shape)


def remedy(settings, shape, present):
    """The flags that make the run fit into `present` bytes, in words: one of them, else as many as it takes."""
    kinds = (_checkpoint, _smaller_batch, _shorter, _fewer_layers)
    for changes in kinds:
        for flag, changed, smaller in changes(settings, shape):
            if (size := _need(changed, smaller).total) <= present:
                return f"{flag} brings it to {size / GB:.2f} GB"
    flags = []
    for changes in kinds:
        for flag, changed, smaller in list(changes(settings, shape))[-1:]:
            flags, settings, shape = [*flags, flag], changed, smaller
            if (size := _need(settings, shape).total) <= present:
                return f"{' '.join(flags)} bring it to {size / GB:.2f} GB"
    return "no flag makes it fit: take a smaller model, or a quantized one on a GPU"


def _with(settings, **changes):
    return type(settings)(**{**vars(settings), **changes})


def _checkpoint(settings, shape):
    if not settings.grad_checkpoint:
        yield "--grad-checkpoint", _with(settings, grad_checkpoint=True), shape


def _smaller_batch(settings, shape):
    """Fewer rows a batch and more batches an update: the same update."""
    for parts in range(2, settings.batch_size + 1):
        if settings.batch_size % parts == 0:
            rows, steps = settings.batch_size // parts, settings.grad_accumulation_steps * parts
            flag = f"--batch-size {rows} --grad-accumulation-steps {steps}"
            changed = _with(settings, batch_size=rows, grad_accumulation_steps=steps)
            yield flag, changed, replace(shape, rows=min(rows, shape.rows))


def _shorter(settings, shape):
    tokens = shape.tokens // 2
    while tokens >= SHORTEST:
        counts = tuple(min(count, tokens) for count in shape.counts)
        changed = _with(settings, max_seq_length=tokens)
        yield f"--max-seq-length {tokens}", changed, replace(shape, tokens=tokens, counts=counts)
        tokens //= 2


def _fewer_layers(settings, shape):
    layers = (
        0 if settings.resume_adapter_file else len(skeleton(settings.model).layers)
    )  # a resumed adapter has its own
    layers = layers if settings.num_layers < 0 else min(layers, settings.num_layers)
    while layers > 1:
        layers //= 2
        yield f"--num-layers {layers}", _with(settings, num_layers=layers), shape
