"""Measure the memory estimate against the peak of real runs, each in a fresh process:  python bench/memory.py

Prints, for the embedded models and a random llama and Gemma-2 of about 25M parameters, what lab/memory.py says before the weights load,
what MLX's allocator and the process held at their peaks (resident set, with Python), and the ratio estimate / measured.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab.hub import GEMMA_TINY, SOURCE_TINY, TINY  # noqa: E402

LLAMA = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "num_attention_heads": 8}
LLAMA |= {"num_key_value_heads": 4, "head_dim": 64, "vocab_size": 8192, "rms_norm_eps": 1e-5, "rope_theta": 5e7}
LLAMA |= {"model_type": "llama", "tie_word_embeddings": False, "max_position_embeddings": 2048}
GEMMA = {
    **LLAMA,
    "model_type": "gemma2",
    "head_dim": 80,
    "query_pre_attn_scalar": 64,
}  # wider heads, as the 9B has
UPDATES = 2
RUNS = [  # settings, tokens of every row, share of them that is trained
    ({}, 256, 1.0),
    ({"batch_size": 8}, 128, 0.3),
    ({"grad_checkpoint": True}, 256, 1.0),
    ({"num_layers": 2}, 256, 1.0),
    ({"rank": 64, "optimizer": "adamw"}, 128, 1.0),
    ({"fine_tune_type": "dora"}, 256, 0.3),
    ({"fine_tune_type": "full"}, 128, 1.0),
    ({"batch_size": 2, "grad_accumulation_steps": 4}, 512, 0.3),
]


def build(folder, config):
    """A random model of `config` in `folder`, in float32, with an embedded model's tokenizer beside it."""
    from lab.device import mx  # isort: skip
    from mlx.utils import tree_flatten
    from mlx_lm.models import gemma2, llama

    mx.random.seed(0)
    kind = gemma2 if config["model_type"] == "gemma2" else llama
    model = kind.Model(kind.ModelArgs.from_dict(config))
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((SOURCE_TINY / name).read_bytes())


def measure(model_path, given, tokens, share):
    """One run in this process: {"estimate", "peak", "resident"} in bytes."""
    import numpy as np
    from mlx.utils import tree_flatten

    from lab import adapters, memory, models, training
    from lab.batches import Schedule
    from lab.chat import Sequence
    from lab.device import mx
    from lab.settings import resolve
    from lab.tuning import checkpointed, prepare

    settings, inherited = resolve({"model": str(model_path), "data": "-", **given})
    draw = np.random.default_rng(0)
    marks = np.arange(tokens + 1) >= tokens * (1 - share)
    rows = settings.batch_size * settings.grad_accumulation_steps * UPDATES
    sequences = [Sequence(draw.integers(0, 2000, tokens + 1).astype(np.int32), marks) for _ in range(rows)]
    bare = memory.skeleton(settings.model)
    adapters.add_layers(bare, vars(settings))
    need = memory.estimate(bare, settings, memory.largest_batch(sequences, settings.batch_size))
    model, _ = models.load(settings.model)
    loaded = mx.get_peak_memory()
    prepare(model, settings, inherited)
    model.train()
    schedule = Schedule(sequences, settings.batch_size, 0)
    updates = training.Updates(model, training.make_optimizer(settings), schedule, settings)
    best = []
    with checkpointed(model.layers[0], settings):
        for update in range(UPDATES):
            updates(update)
            best = [
                mx.array(value) for _, value in tree_flatten(model.trainable_parameters())
            ]  # as the recorder keeps it
            mx.eval(best)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resident *= 1 if sys.platform == "darwin" else 1024  # kilobytes on Linux
    words = {"words": need.words(), "process": memory.PROCESS, "loading": loaded}
    return {"estimate": need.total, "peak": mx.get_peak_memory(), "resident": resident, **words}


def main():
    if len(sys.argv) > 1:
        print(json.dumps(measure(*json.loads(sys.argv[1]))))
        return
    print(
        "model     settings                                              estimate     MLX  process  est/MLX  est/process"
    )
    with tempfile.TemporaryDirectory() as folder:
        llama, gemma = Path(folder) / "llama", Path(folder) / "gemma"
        build(llama, LLAMA)
        build(gemma, GEMMA)
        for name, path in (("embedded", TINY), ("25M", llama), ("Gemma", GEMMA_TINY), ("Gemma 25M", gemma)):
            for given, tokens, share in RUNS:
                if name == "embedded" and given.get("fine_tune_type") == "full":
                    continue  # it is quantized
                job = json.dumps([str(path), given, tokens, share])
                run = subprocess.run([sys.executable, __file__, job], capture_output=True, text=True, check=True)
                found = json.loads(run.stdout.splitlines()[-1])
                alone = found["estimate"] - found["process"]
                ratios = f"{alone / found['peak']:8.2f} {found['estimate'] / found['resident']:12.2f}"
                sizes = " ".join(f"{found[key] / 1e6:7.0f}M" for key in ("peak", "resident"))
                print(
                    f"{name:9} {f'{given} T{tokens} {share}':53} {alone / 1e6:7.0f}M {sizes} {ratios}", flush=True
                )


if __name__ == "__main__":
    main()
