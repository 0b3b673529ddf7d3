"""One contestant of bench/train.py, in a process of its own:  python bench/contestants.py NAME JOB.json

Trains job["warmup"] steps, then measures job["steps"] more, or fewer when job["seconds"] are used up first. The last
line it prints is JSON: trained tokens, real and computed positions, seconds, peak memory (of all ranks together). A trained token is one that
our trainer marks in the row: an answer's token, its end token included.

Letters: B batch, T tokens of a batch.
"""

import contextlib
import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


class Window:
    """What is measured: the steps after the warm-up, until there are enough or the time is used up."""

    def __init__(self, job):
        self.job, self.trained, self.real, self.computed, self.seconds, self.steps = job, 0, 0, 0, 0.0, 0
        self.warm_seconds, self.cpu_seconds, self.cpu_started = 0.0, 0.0, 0.0

    def add(self, place, seconds, trained, real=0, computed=0):
        """Count step `place` (from 0); True while more steps are wanted. A slow warm-up ends after a quarter of the time."""
        if place == 0 or (place < self.job["warmup"] and self.warm_seconds < self.job["seconds"] / 4):
            self.warm_seconds, self.cpu_started = self.warm_seconds + seconds, time.process_time()
            return True
        self.steps += 1
        self.seconds, self.cpu_seconds = self.seconds + seconds, time.process_time() - self.cpu_started
        self.trained, self.real, self.computed = self.trained + trained, self.real + real, self.computed + computed
        return self.steps < self.job["steps"] and self.seconds < self.job["seconds"]

    def result(self, **more):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        content = {key: value for key, value in vars(self).items() if key != "job"}
        return {**content, "peak_bytes": peak, **more}


def sequences(job):
    """The encoded rows of the data folder, as our trainer sees them."""
    from lab import chat
    from lab.models import load_tokenizer
    from lab.records import training_rows

    tokenizer = load_tokenizer(job["model"])
    rows = training_rows(Path(job["data"]) / "train.jsonl")
    return [item for number, row in rows for item in chat.encode_row(tokenizer, row, f"{number}", True)]


def device_peak(mx):
    """What MLX itself says of its peak, in bytes: device memory where there is a GPU."""
    return {"mlx_peak_bytes": mx.get_peak_memory()}


def ours(job):
    """Our trainer's own update, on its own batches; of several ranks the first one speaks."""
    from lab.device import mx  # isort: skip
    from lab import adapters, models, ranks, settings, training
    from lab.batches import Schedule

    lora = {"rank": job["rank"], "scale": job["scale"], "dropout": 0.0}
    given = {"model": job["model"], "data": job["data"], "learning_rate": job["rate"], "mask_prompt": True}
    given.update(batch_size=job["batch_size"], optimizer="adam", lora_parameters=lora, seed=job["seed"])
    settings, _ = settings.resolve(given)
    rows, config = sequences(job), json.loads((Path(job["model"]) / "config.json").read_text())
    model, _ = models.load(job["model"])
    mx.random.seed(settings.seed)
    adapters.add_layers(model, vars(settings))
    schedule = Schedule(rows, settings.batch_size, settings.seed)
    updates = training.Updates(model, training.make_optimizer(settings), schedule, settings)
    model.train()
    window, step, wanted, flops = Window(job), 0, True, 0
    while wanted:
        started = time.perf_counter()
        _, trained, *_ = updates(step)
        seconds = time.perf_counter() - started
        batch, measured = schedule.batch(step), window.steps
        lengths = [len(rows[row]) - 1 for row in batch.rows]
        wanted = window.add(step, seconds, trained, sum(lengths), batch.weights.size)
        flops += (window.steps > measured) * useful_flops(config, job["rank"], lengths, trained)
        wanted = ranks.total(float(wanted and ranks.first())) > 0
        step += 1
    result = window.result(**device_peak(mx), flops=flops)
    for key in ("peak_bytes", "cpu_seconds"):
        result[key] = ranks.total(float(result[key]))
    return result


def useful_flops(config, rank, lengths, trained):
    """The multiplications and additions that a LoRA step cannot do without: real tokens, scores below the diagonal, the
    head at `trained` positions, gradients of activations and adapters but of no frozen weight.
    """
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    size, groups, inner = config["head_dim"], config["num_key_value_heads"], config["intermediate_size"]
    shapes = [(hidden, heads * size), *[(hidden, groups * size)] * 2, (heads * size, hidden)]
    shapes += [(hidden, inner)] * 2 + [(inner, hidden)]
    dense = sum(inputs * outputs for inputs, outputs in shapes)
    low = sum(rank * (inputs + outputs) for inputs, outputs in shapes)
    attention = sum(length * (length + 1) / 2 for length in lengths) * heads * size
    layers = config["num_hidden_layers"] * (sum(lengths) * (4 * dense + 6 * low) + 12 * attention)
    return layers + 4 * trained * hidden * config["vocab_size"]


def mlx_lm_lora(job):
    """`mlx_lm lora`'s own main, told to report every step; nothing of it is changed."""
    if job["fast_blas"]:
        import lab.device  # noqa: F401  (puts the fast BLAS in front; all else stays mlx-lm's)
    import mlx.core as mx
    from mlx_lm import lora
    from mlx_lm.tuner.datasets import ChatDataset

    extra = []  # trained tokens that mlx-lm counts beyond ours, a row: a pad target, what the template writes after the end
    process = ChatDataset.process

    def watched(self, row):
        tokens, offset = process(self, row)
        ends = [place for place, token in enumerate(tokens) if token == self.tokenizer.eos_token_id]
        extra.append(len(tokens) - ends[-1])
        return tokens, offset

    ChatDataset.process = watched
    window = Window(job)

    class Stop(Exception):
        pass

    class Callback:
        def on_train_loss_report(self, info):
            tokens = round(info["tokens_per_second"] / info["iterations_per_second"])
            if len(set(extra)) != 1:
                raise RuntimeError(f"rows end in different ways: {set(extra)} tokens after the end token")
            trained = tokens - extra[0] * job["batch_size"]
            if not window.add(info["iteration"] - 1, 1 / info["iterations_per_second"], trained):
                raise Stop

        def on_val_loss_report(self, info):
            pass

    lora.get_reporting_callbacks = lambda *_, **__: Callback()
    sys.argv = ["mlx_lm.lora", "-c", job["mlx_lm_config"]]
    with contextlib.suppress(Stop):
        lora.main()
    return window.result(**device_peak(mx))


def peft(job):
    """PEFT + torch: HF's llama, sdpa attention, LoRA on the same modules, our batches (so as little padding as ours).

    No attention mask is given: rows are padded at the end, where a causal mask already hides the padding, and so sdpa
    may take its fast causal path. The first row of labels is what HF's own loss takes; -100 is not trained.
    """
    import numpy as np
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from lab.batches import Schedule

    device = "cuda" if job["cuda"] else "cpu"
    if not job["cuda"]:
        torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    options = {"dtype": torch.bfloat16 if job["cuda"] else torch.float32, "attn_implementation": "sdpa"}
    model = AutoModelForCausalLM.from_pretrained(job["dense"], **options).to(device)
    model.config.use_cache = False
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=job["rank"], lora_alpha=job["scale"] * job["rank"], target_modules=names)
    model = get_peft_model(model, config).train()
    trainable = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=job["rate"], fused=True)
    rows = [SimpleNamespace(**item) for item in _stored_rows(job, np)]
    schedule = Schedule([_Row(item.tokens, item.trained) for item in rows], job["batch_size"], job["seed"])
    window, step, wanted = Window(job), 0, True
    while wanted:
        batch = schedule.batch(step)
        started = time.perf_counter()
        labels = np.where(batch.weights > 0, batch.targets, -100)
        inputs = torch.from_numpy(batch.inputs.astype(np.int64)).to(device)
        shifted = torch.from_numpy(labels.astype(np.int64)).to(device)
        loss = model(input_ids=inputs, labels=shifted, shift_labels=shifted).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        seconds = time.perf_counter() - started
        if not np.isfinite(value):
            raise RuntimeError(f"loss {value} at step {step}")
        real = sum(len(rows[row].tokens) - 1 for row in batch.rows)
        wanted = window.add(step, seconds, int(batch.weights.sum()), real, batch.weights.size)
        step += 1
    more = {"torch_peak_bytes": torch.cuda.max_memory_allocated()} if job["cuda"] else {}
    return window.result(**more, versions={"torch": torch.__version__})


class _Row(SimpleNamespace):
    def __init__(self, tokens, trained):
        super().__init__(tokens=tokens, trained=trained, where="")

    def __len__(self):
        return len(self.tokens)


def store_rows(rows, path):
    """Write encoded rows where a process without mlx can read them."""
    import numpy as np

    lengths = [len(row) for row in rows]
    tokens, trained = (np.concatenate([getattr(row, key) for row in rows]) for key in ("tokens", "trained"))
    np.savez(path, lengths=lengths, tokens=tokens, trained=trained)


def _stored_rows(job, np):
    content = np.load(job["rows"])
    ends = np.cumsum(content["lengths"])[:-1]
    parts = (np.split(content[key], ends) for key in ("tokens", "trained"))
    return [{"tokens": tokens, "trained": trained} for tokens, trained in zip(*parts, strict=True)]


def gemm(job):
    """float32 products of 1024 x 1024 through MLX and our BLAS: GFLOP/s, the best of 12."""
    from lab.device import mx  # isort: skip

    left, right, seconds = mx.random.normal((1024, 1024)), mx.random.normal((1024, 1024)), []
    for _ in range(12):
        started = time.perf_counter()
        mx.eval(left @ right)
        seconds.append(time.perf_counter() - started)
    return {"gflops": 2 * 1024**3 / min(seconds) / 1e9}


CONTESTANTS = {"ours": ours, "mlx_lm": mlx_lm_lora, "peft": peft, "gemm": gemm}


def main(name, path):
    def work():
        print(json.dumps(CONTESTANTS[name](json.loads(Path(path).read_text()))))
        return 0

    if name != "ours":
        return work()
    from lab import ranks

    return ranks.run(work)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
