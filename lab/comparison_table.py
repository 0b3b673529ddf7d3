"""A comparison's figures as lines of cells, for the terminal and for the page; nothing is computed but quotients in words."""

from lab import report

SPEED = {  # figure: its row, what it is multiplied by, digits
    "first_token_seconds": ("time to the first token, ms", 1000, 1),
    "prefill_tokens_per_second": ("reading the question, tokens/s", 1, 0),
    "decode_tokens_per_second": ("writing the answer, tokens/s", 1, 0),
}
SPEED_NOTE = (
    "Medians of {repeats} rounds with their quartiles, the stages in turn; x is the quotient by the base's of the same round: "
    "where its quartiles lie on both sides of 1, nothing is told apart. {prompts} questions ({prompt_tokens} tokens) one at a time, {new_tokens} new tokens each, end tokens or not. "
    "Peak memory is that of MLX's arrays, the model's among them."
)
SIZE_NOTE = "On the disk: the adapter's tensors and its config. Share: of the model's parameters."
TRAINING_NOTE = (
    "Time of the training loop, evaluations and saving included, and peaks of a process of its own, loading included. "
    "Process: its resident memory, libraries included; arrays: MLX's. "
    "No line for an adapter from elsewhere, or one that is not what its folder's summary tells of."
)


def speed_lines(content):
    """Speed and memory: a header with the stages, then a line for each figure."""
    found = content.get("speed") or {}
    lines = [[row, *(_timed(figures, name) for figures in found.values())] for name, (row, *_) in SPEED.items()]
    loads = [_spread(figures["load_seconds"], 1000, 1) for figures in found.values()]
    lines.append(["putting the adapter on, ms", *loads])
    lines.append(
        ["peak memory while answering", *(size_words(figures["peak_bytes"]) for figures in found.values())]
    )
    return [["one question at a time", *found], *lines] if found else []


def _timed(figures, name):
    _, factor, digits = SPEED[name]
    ratio = (figures.get("ratio") or {}).get(name)
    return _spread(figures[name], factor, digits) + (f", x{_spread(ratio, 1, 2)}" if ratio else "")


def _spread(value, factor, digits):
    if value is None:
        return "-"
    median, low, high = (f"{factor * value[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} [{low}-{high}]"


def size_lines(content):
    """Sizes: a header, the model, then a line for each adapter."""
    model, sizes = content.get("model_size"), content.get("sizes") or {}
    if not model:
        return []
    lines = [["the model", "-", size_words(model["bytes"]), f"{model['parameters']:,}", "-"]]
    for stage, size in sizes.items():
        trained, share = f"{size['trained_parameters']:,}", f"{100 * size['share']:.2f} %"
        lines.append([stage, size["kind"], size_words(size["bytes"]), trained, share])
    return [["stage", "kind", "on the disk", "parameters", "share"], *lines]


def training_lines(content):
    """What training took: a header, then a line for each adapter that says it."""
    lines = []
    for stage, found in (content.get("training") or {}).items():
        if found.get("seconds") is not None:
            lines.append([stage, *_training_cells(found)])
    head = [
        "stage",
        "updates",
        "time",
        "ms an update",
        "peak, process",
        "peak, arrays",
        "validation loss",
        "kept at",
    ]
    return [head, *lines] if lines else []


def _training_cells(found):
    made, loss = found["updates"], found.get("best_valid_loss")
    part = f" of {found['iterations']}" if found.get("iterations") not in (None, made) else ""
    return [
        f"{made}{part}",
        f"{found['seconds']:.0f} s",
        f"{1000 * found['seconds'] / made:.0f}" if made else "-",
        size_words(found["process_bytes"]),
        size_words(found["device_bytes"]),
        f"{loss:.4f}" if loss is not None else "-",
        "-" if found.get("best_iteration") is None else str(found["best_iteration"]),
    ]


def size_words(nbytes):
    """Bytes in kB, MB or GB of 1000s."""
    for unit, words in ((1e9, "GB"), (1e6, "MB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.2f} {words}"
    return f"{nbytes / 1e3:.1f} kB"


def show(content, samples, file):
    """Print a comparison: what is right, the differences, `samples` of the answers side by side, then costs."""
    report.show({"stages": content["stages"], "paired": content.get("paired"), "samples": samples}, file)
    for table in filter(None, [speed_lines(content), size_lines(content), training_lines(content)]):
        report.draw_table(table, file)
        print(file=file)
