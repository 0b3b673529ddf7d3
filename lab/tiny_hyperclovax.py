"""The embedded model in the file layout of HyperCLOVA X SEED Think 32B: shape, tokenizer, vision keys, files."""

import shutil

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lab import pretraining

VOCABULARY = 2048
END_OF_TEXT = "<|endoftext|>"
# HyperCLOVA X SEED Think puts its special tokens behind the text vocabulary; the same names stand here.
SPECIAL_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|stop|>", "<|endofturn|>", "<think>", "</think>"),
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>"),
    *("<|image_start|>", "<|image_end|>", "<|IMAGE_PAD|>", "<|video_start|>", "<|video_end|>", "<|VIDEO_PAD|>"),
)


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


def train_tokenizer(rows, template):
    """A byte-level BPE tokenizer of VOCABULARY tokens, special tokens last, with the chat template."""
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
    tokenizer.train_from_iterator(pretraining.texts(rows), trainer)
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


def template_of(data):
    """The file of the chat template, which stands with the world's `data`."""
    return data / "chat_template.jinja"


def new_model():
    """The text model, its weights random; it is a plain llama, for its multipliers are neutral."""
    return llama.Model(llama.ModelArgs.from_dict({**text_config(), "model_type": "llama"}))


def losses(model, inputs, targets):
    """-log p of each target in nats, (B, T), by the stock model, which made the committed checkpoint.

    The CPU's own path (lab.cpu_llama) is faster, but has other last bits.
    """
    return nn.losses.cross_entropy(model(inputs), targets)


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
    pretraining.save_shards(folder, tensors | vision_tensors(seed))
    tokenizer.save_pretrained(str(folder))
    shutil.copyfile(template, folder / "chat_template.jinja")
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    _write_configs(folder, ids)


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
    pretraining.write_json(folder / "config.json", config)
    ends = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    pretraining.write_json(
        folder / "generation_config.json", {"eos_token_id": ends, "pad_token_id": 0, "do_sample": False}
    )
