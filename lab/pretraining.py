"""How the embedded models are made: documents from the authored world, pre-training from scratch, shards.

What one family has of its own, shape, tokenizer and files, is in lab/tiny_hyperclovax.py and lab/tiny_gemma.py.
"""

import json
import random
from pathlib import Path

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from lab import batches, chat, general
from lab.korean import fill
from lab.progress import progress

DIALOGUE_PAIRS = 400  # two-turn dialogues, so that a second turn is nothing new
UNKNOWN_COMPANIES = (
    500  # names made up anew: few names would be learnt by heart, many teach to copy the name asked for
)
PROMPT_WEIGHT = 0.3  # questions are read more than written: their tokens count less in pre-training than answers
WARM_UP = 200
SHARD_BYTES = 2_500_000
CHECKPOINT_BYTES = 8_000_000  # of all files together, at most


def documents(folder, seed):
    """What the base reads: rows of {"text"} and {"messages"}. No held-out wording is among them."""
    rows = [{"text": text} for text in general.load_documents(folder)]
    pairs = []
    for fact in general.load_facts(folder):
        rows += [{"text": text} for text in fact.texts]
        pairs += [(question, fact.answer) for question in general.split_general(fact).train]
    for identity in general.load_identity(folder):
        pairs += [(question, identity.base_answer) for question in identity.train]
    rows += [dialogue(pair) for pair in pairs]
    short = [pair for pair in pairs if len(pair[1]) < 100]
    draw = random.Random(seed)
    rows += [dialogue(pair) for pair in unknown_companies(folder, draw)]
    return rows + [dialogue(*draw.sample(short, 2)) for _ in range(DIALOGUE_PAIRS)]


def unknown_companies(folder, draw):
    """UNKNOWN_COMPANIES (question, honest answer) pairs about companies whose names are made up from parts."""
    (group,) = general.read_yaml(Path(folder) / "unknown.yaml")
    names = set()
    while len(names) < UNKNOWN_COMPANIES:
        parts = "".join(
            draw.choices(group["name_parts"][draw.choice(("korean", "latin"))], k=draw.choice((2, 2, 3)))
        )
        names.add(parts + draw.choice(group["name_endings"]))
    ask = {name: fill(draw.choice(group["questions"]), {"a": name}) for name in sorted(names)}
    return [(question, fill(group["answer"], {"a": name})) for name, question in ask.items()]


def dialogue(*pairs):
    """A messages row of question and answer pairs."""
    turns = [({"role": "user", "content": q}, {"role": "assistant", "content": a}) for q, a in pairs]
    return {"messages": [message for turn in turns for message in turn]}


def texts(rows):
    """What a tokenizer is trained on: the text of each row."""
    return [row.get("text") or "\n".join(turn["content"] for turn in row["messages"]) for row in rows]


def pretrain(family, tokenizer, rows, args):
    """Train a new model of `family`, a module, for args.steps updates; returns it and its curve [{"step", "loss"}]."""
    end_of_text = tokenizer.convert_tokens_to_ids(family.END_OF_TEXT)
    sequences = [sequence for row in rows for sequence in _encode(tokenizer, row, end_of_text)]
    schedule = batches.Schedule(sequences, args.batch_size, args.seed, pad_to=16)
    mx.random.seed(args.seed)
    model = family.new_model()
    warm_up = optim.linear_schedule(0.0, args.learning_rate, WARM_UP)
    decay = optim.cosine_decay(args.learning_rate, max(1, args.steps - WARM_UP), args.learning_rate / 10)
    rate = optim.join_schedules([warm_up, decay], [WARM_UP])
    optimizer = optim.AdamW(rate, betas=[0.9, 0.98], weight_decay=args.weight_decay, bias_correction=True)
    step = _update(model, optimizer, family.losses)
    curve, losses, tokens = [], [], sum(len(sequence) for sequence in sequences)
    print(
        f"{len(sequences)} sequences, {tokens} tokens an epoch, {args.steps / schedule.batches_per_epoch:.1f} epochs"
    )
    for number in progress(range(args.steps), "pre-training"):
        batch = schedule.batch(number)
        weights = np.where(batch.weights > 0, 1.0, PROMPT_WEIGHT * (batch.targets != 0)).astype(np.float32)
        losses.append(step(mx.array(batch.inputs), mx.array(batch.targets), mx.array(weights)))
        mx.eval(losses[-1], model.state, optimizer.state)
        if (number + 1) % 100 == 0 or number + 1 == args.steps:
            curve.append({"step": number + 1, "loss": round(float(mx.mean(mx.stack(losses))), 4)})
            losses = []
    return model, curve


def _encode(tokenizer, row, end_of_text):
    if "text" in row:
        tokens = [*tokenizer.encode(row["text"]), end_of_text]
        return [chat.Sequence(np.array(tokens, dtype=np.int32), np.ones(len(tokens), dtype=bool))]
    return chat.encode_row(tokenizer, row, mask_prompt=True)


def _update(model, optimizer, losses):
    def loss(inputs, targets, weights):
        return (losses(model, inputs, targets) * weights).sum() / weights.sum()

    loss_and_gradient = nn.value_and_grad(model, loss)

    def update(inputs, targets, weights):
        value, gradient = loss_and_gradient(inputs, targets, weights)
        gradient, _ = optim.clip_grad_norm(gradient, 1.0)
        optimizer.update(model, gradient)
        return value

    return update


def save_shards(folder, tensors):
    """Write {name: array} as bfloat16 shards with their index."""
    tensors = {name: value.astype(mx.bfloat16) for name, value in sorted(tensors.items())}
    shards, size = [{}], 0
    for name, value in tensors.items():
        if size + value.nbytes > SHARD_BYTES and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    names = [f"model-{place:05d}-of-{len(shards):05d}.safetensors" for place in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        mx.save_safetensors(str(folder / name), shard, metadata={"format": "pt"})
    total = sum(value.nbytes for value in tensors.values())
    weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
    write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map}
    )


def write_json(path, content):
    """Write `content` as indented JSON."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
