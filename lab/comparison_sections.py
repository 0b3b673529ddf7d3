"""The report's sections on models side by side: what compare_models.py measured, models.json and tuning.json."""

from lab import bars, comparison_table, sections
from lab.comparison import MAKES
from lab.comparison_table import SIZE_NOTE, SPEED_NOTE, TRAINING_NOTE, size_words
from lab.page import Section, Table
from lab.report import FEWER_IS_BETTER, METRICS

KINDS = {  # file: the section's id and title
    "models.json": ("models", "Base and tuned side by side"),
    "tuning.json": ("tuning", "LoRA, DoRA and full fine-tuning"),
}


def comparison(name, content):
    """The section of the file `name` with `content`, None where it was not measured."""
    part, title = KINDS[name]
    if content is None:
        return Section(part, title, missing=MAKES[name])
    answers = sections.answers(content, f"{name} holds them all.")
    found = [*sections.stages(content).tables, *answers.tables, *_costs(content)]
    return Section(
        part, title, [_memory(content)], [table for table in found if table.rows], _pictures(part, content)
    )


def _pictures(part, content):
    """A list of the picture of what is right, or of none."""
    found = content["stages"]
    metrics = [metric for metric in METRICS if metric not in FEWER_IS_BETTER]
    lines = [
        (metric, {stage: value[metric] for stage, value in found.items() if metric in value}) for metric in metrics
    ]
    lines = [(metric, values) for metric, values in lines if values]
    title = "Right answers, with 95 % intervals"
    return [bars.bars(f"{part}-answers", title, lines, {}, bars.reach_of(lines, {}))] if lines else []


def _memory(content):
    """The peaks and the load, in a sentence: no stage has a share of its own in them."""
    peak, seconds = content.get("peak") or {}, content.get("load_seconds")
    parts = [f"All stages in one load of {(content.get('flags') or {}).get('model') or 'the model'}"]
    parts += [f"{seconds:.2f} s to load"] if seconds is not None else []
    parts += (
        [f"the process's memory at its peak {size_words(peak['process_bytes'])}"]
        if peak.get("process_bytes")
        else []
    )
    parts += [f"MLX's arrays at theirs {size_words(peak['device_bytes'])}"] if peak.get("device_bytes") else []
    return f"{', '.join(parts)}."


def _costs(content):
    notes = SPEED_NOTE.format(**content["asked"]), SIZE_NOTE, TRAINING_NOTE
    lines = (getattr(comparison_table, f"{name}_lines")(content) for name in ("speed", "size", "training"))
    captions = ("Speed and memory", "Sizes", "What training took")
    there = [table for table in zip(captions, lines, notes, strict=True) if table[1]]
    return [Table(caption, head, rows, note) for caption, (head, *rows), note in there]
