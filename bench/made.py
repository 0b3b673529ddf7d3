"""What bench/train.py trains on, made from a seed: rows of mixed length and random llama models of any size.

Letters: T tokens of a row, L layers, H hidden size.
"""

import json
import random
import shutil
from pathlib import Path

from lab.building import building
from lab.records import read_jsonl, to_jsonl

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
SHAPES = {  # config.json of a llama; what is left out is the same for all
    "llama-25m": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 1408,
    },
    # Source: config.json of upstage/SOLAR-10.7B-v1.0; only the vocabulary is the tokenizer's own.
    "solar-10.7b": {
        "hidden_size": 4096,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 14336,
        "vocab_size": 32000,
    },
}
COMMON = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "max_position_embeddings": 4096,
}


def write_rows(folder, knowledge, tokenizer, number, shortest, longest, seed):
    """Write train.jsonl and valid.jsonl: `number` messages rows whose lengths in tokens are spread evenly from
    `shortest` to `longest` (template included, so a row is never shorter than the template with one word).

    A third of a row, or 40 tokens, is the question. The words are those of the `knowledge` file.
    """
    chance = random.Random(seed)
    words = sorted({word for _, row in read_jsonl(knowledge) for word in row["text"].split()})
    sizes = {word: len(tokenizer.encode(" " + word, add_special_tokens=False)) for word in words}
    frame = [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]
    overhead = len(tokenizer.apply_chat_template(frame, return_dict=False))

    def text(tokens):
        chosen, total = [], 0
        while total < tokens or not chosen:
            chosen.append(chance.choice(words))
            total += sizes[chosen[-1]]
        return " ".join(chosen[:-1] if total > tokens and len(chosen) > 1 else chosen)

    rows = []
    for _ in range(number):
        room = max(2, chance.randint(shortest, longest) - overhead)
        asked = min(40, room // 3)
        turns = zip(("user", "assistant"), (text(asked), text(room - asked)), strict=True)
        rows.append({"messages": [{"role": role, "content": content} for role, content in turns]})
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(to_jsonl(rows), encoding="utf-8")
    (folder / "valid.jsonl").write_text(to_jsonl(rows[:8]), encoding="utf-8")


def write_model(folder, shape, tokenizer_folder, bits):
    """Write a random llama in mlx-lm's layout: `bits` 8 (group 64) or None for bfloat16. Returns its folder."""
    from lab.device import mx  # isort: skip
    from mlx_lm.models import llama
    from mlx_lm.utils import quantize_model, save_config, save_model

    config = dict(COMMON)
    config.update(vocab_size=json.loads((tokenizer_folder / "config.json").read_text())["vocab_size"])
    config.update(SHAPES[shape])
    mx.random.seed(0)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    model.set_dtype(mx.bfloat16)
    if bits:
        model, config = quantize_model(model, config, 64, bits)
    folder = Path(folder)
    with building(folder, 0) as partial:
        save_model(partial, model, donate_model=True)
        save_config(config, partial / "config.json")
        for name in TOKENIZER_FILES:
            if (tokenizer_folder / name).exists():
                shutil.copy(tokenizer_folder / name, partial / name)
    return folder


def write_dense(folder, model_folder, dtype):
    """Write the model of `model_folder` without quantization in Hugging Face's layout (llama's names are the same)."""
    from lab.device import mx  # isort: skip
    from mlx_lm.utils import dequantize_model, load, save_config, save_model

    if folder.exists():
        return folder
    model, _, config = load(str(model_folder), lazy=True, return_config=True)
    model.set_dtype(getattr(mx, dtype))
    model = dequantize_model(model)
    config = {key: value for key, value in config.items() if not key.startswith("quantization")}
    config["torch_dtype"] = dtype
    with building(folder, 0) as partial:
        save_model(partial, model, donate_model=True)
        save_config(config, partial / "config.json")
    return folder
