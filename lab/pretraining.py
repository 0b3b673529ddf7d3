"""How the embedded model is made: documents from the authored world, a tokenizer, pre-training from scratch, files."""

import json
import random
import shutil
from pathlib import Path

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lab import batches, chat, general
from lab.korean import fill
from lab.progress import progress

VOCABULARY = 2048
# HyperCLOVA X SEED Think puts its special tokens behind the text vocabulary; the same names stand here.
SPECIAL_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|stop|>", "<|endofturn|>", "<think>", "</think>"),
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>"),
    *("<|image_start|>", "<|image_end|>", "<|IMAGE_PAD|>", "<|video_start|>", "<|video_end|>", "<|VIDEO_PAD|>"),
)
DIALOGUE_PAIRS = 400  # two-turn dialogues, so that a second turn is nothing new
UNKNOWN_COMPANIES = (
    500  # names made up anew: few names would be learnt by heart, many teach to copy the name asked for
)
PROMPT_WEIGHT = 0.3  # questions are read more than written: their tokens count less in pre-training than answers
WARM_UP = 200
SHARD_BYTES = 2_500_000
CHECKPOINT_BYTES = 8_000_000  # of all files together, at most


def text_config():
    """The text part's shape: the 32B's kind of everything (GQA, untied head, neutral multipliers), 2M parameters."""
    return {
        "model_type": "hyperclovax",
        "architectures": ["HyperCLOVAXForCausalLM"],
        "hidden_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "intermediate_size": 384,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 5e7,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "attention_multiplier": 32**-0.5,
        "residual_multiplier": 1.0,
        "embedding_multiplier": 1.0,
        "logits_scaling": 1.0,
        "use_post_norm": False,
        "tie_word_embeddings": False,
    }


def vision_config():
    """The smallest Qwen2.5-VL vision tower that keeps the 32B's keys."""
    return {
        "model_type": "qwen2_5_vl",
        "depth": 1,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 64,
        "out_hidden_size": text_config()["hidden_size"],
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "in_channels": 3,
        "fullatt_block_indexes": [0],
        "window_size": 112,
        "hidden_act": "silu",
    }


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


def train_tokenizer(rows, template):
    """A byte-level BPE tokenizer of VOCABULARY tokens, special tokens last, with the chat template."""
    texts = [row.get("text") or "\n".join(turn["content"] for turn in row["messages"]) for row in rows]
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r" ?\p{Hangul}+| ?[A-Za-z_]+|\d| ?[^\s\w]+|\n+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    size = VOCABULARY - len(SPECIAL_TOKENS)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS),
        clean_up_tokenization_spaces=False,
        model_max_length=text_config()["max_position_embeddings"],
    )
    fast.chat_template = template.read_text(encoding="utf-8")
    return fast


def pretrain(tokenizer, rows, args):
    """Train the text model from scratch for args.steps updates; returns it and its curve [{"step", "loss"}]."""
    end_of_text = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    sequences = [sequence for row in rows for sequence in _encode(tokenizer, row, end_of_text)]
    schedule = batches.Schedule(sequences, args.batch_size, args.seed, pad_to=16)
    mx.random.seed(args.seed)
    config = text_config()
    model = llama.Model(llama.ModelArgs.from_dict({**config, "model_type": "llama"}))
    warm_up = optim.linear_schedule(0.0, args.learning_rate, WARM_UP)
    decay = optim.cosine_decay(args.learning_rate, max(1, args.steps - WARM_UP), args.learning_rate / 10)
    rate = optim.join_schedules([warm_up, decay], [WARM_UP])
    optimizer = optim.AdamW(rate, betas=[0.9, 0.98], weight_decay=args.weight_decay, bias_correction=True)
    step = _update(model, optimizer)
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


def _update(model, optimizer):
    def loss(inputs, targets, weights):
        return (nn.losses.cross_entropy(model(inputs), targets) * weights).sum() / weights.sum()

    loss_and_gradient = nn.value_and_grad(model, loss)

    def update(inputs, targets, weights):
        value, gradient = loss_and_gradient(inputs, targets, weights)
        gradient, _ = optim.clip_grad_norm(gradient, 1.0)
        optimizer.update(model, gradient)
        return value

    return update


def vision_tensors(seed):
    """Random tensors under the 32B's vision keys; shapes as in transformers' Qwen2.5-VL vision transformer."""
    config, random_ = vision_config(), np.random.default_rng(seed)
    width, inner, out = config["hidden_size"], config["intermediate_size"], config["out_hidden_size"]
    merged = width * config["spatial_merge_size"] ** 2
    patch = (config["in_channels"], config["temporal_patch_size"], config["patch_size"], config["patch_size"])
    shapes = {"patch_embed.proj.weight": (width, *patch), "merger.ln_q.weight": (width,)}
    for name, rows, columns in (("merger.mlp.0", merged, merged), ("merger.mlp.2", out, merged)):
        shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
    linears = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.gate_proj": (inner, width)}
    linears |= {"mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner)}
    for layer in range(config["depth"]):
        for name, shape in linears.items():
            shapes |= {f"blocks.{layer}.{name}.weight": shape, f"blocks.{layer}.{name}.bias": shape[:1]}
        shapes |= {f"blocks.{layer}.norm{place}.weight": (width,) for place in (1, 2)}
    tensors = {f"model.vision_model.{name}": shape for name, shape in shapes.items()}
    hidden = text_config()["hidden_size"]
    tensors |= {"model.mm_projector.weight": (hidden, out), "model.mm_projector.bias": (hidden,)}
    return {name: mx.array(random_.normal(0, 0.02, shape).astype(np.float32)) for name, shape in tensors.items()}


def save_checkpoint(folder, model, tokenizer, template, seed):
    """Write the checkpoint's files, in the 32B's layout, into `folder`, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.language_model.{name}": value for name, value in tree_flatten(model.parameters())}
    tensors |= vision_tensors(seed)
    _save_shards(folder, {name: value.astype(mx.bfloat16) for name, value in sorted(tensors.items())})
    tokenizer.save_pretrained(str(folder))
    shutil.copyfile(template, folder / "chat_template.jinja")
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    _write_configs(folder, ids)


def _save_shards(folder, tensors):
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
    _write(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_configs(folder, ids):
    text = {**text_config(), "eos_token_id": ids["<|im_end|>"], "pad_token_id": 0, "bos_token_id": None}
    config = {
        "architectures": ["HCXVisionV2ForCausalLM"],
        "model_type": "vlm",
        "torch_dtype": "bfloat16",
        "text_config": {**text, "torch_dtype": "bfloat16"},
        "vision_config": vision_config(),
        "image_token_id": ids["<|IMAGE_PAD|>"],
        "video_token_id": ids["<|VIDEO_PAD|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    _write(folder / "config.json", config)
    ends = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    _write(folder / "generation_config.json", {"eos_token_id": ends, "pad_token_id": 0, "do_sample": False})


def _write(path, content):
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
