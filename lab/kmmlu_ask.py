"""KMMLU asked of a loaded model: stage by stage, subject by subject, in batches that may be gone on with."""

import math

from lab import choices, kmmlu, models
from lab.cli import LabError
from lab.kmmlu_run import row_of
from lab.progress import progress


def ask(model, tokenizer, stages, subjects, items_of, batch_size):
    """{stage: rows} of every item of `subjects`, a list of Asked, by each stage's adapter.

    `items_of(stage)` gives the Items that keep them. Raises LabError where a model's figures are not finite.
    """
    shared, rows, plans = choices.can_share(model), {}, {}

    def plan_of(asked):
        if asked.subject not in plans:  # once for all stages
            questions = [choices.Question.of(*found) for found in asked.prompts(tokenizer)]
            warn_of_length(model, asked, questions)
            plans[asked.subject] = choices.Plan(questions, batch_size, shared)
        return plans[asked.subject]

    for stage in stages:
        with items_of(stage) as items:
            models.switch_adapter(model, stage.adapter)
            _one_stage(model, stage, subjects, plan_of, items)
            rows[stage.name] = items.rows
    return rows


def warn_of_length(model, asked, questions):
    """Say how many prompts are longer than what the model was made for; they are asked whole all the same."""
    window = getattr(getattr(model, "args", None), "max_position_embeddings", None)
    if window and (long := sum(len(question.prompt) > window for question in questions)):
        print(
            f"warning: {asked.subject}: {long} prompts have more than the model's {window} tokens; use fewer --shots"
        )


class Sized:
    """An iterator whose length is known."""

    def __init__(self, items, length):
        self.items, self.length = items, length

    def __iter__(self):
        return iter(self.items)

    def __len__(self):
        return self.length


def _one_stage(model, stage, subjects, plan_of, items):
    had = 0
    for asked in subjects:
        plan = plan_of(asked)
        ids = [[asked.items[number].id for number in batch] for batch in plan.batches()]
        before = len(items.rows)
        done = items.found(ids)
        had += len(items.rows) - before
        batches = Sized(choices.scored(model, plan, done), plan.size - done)
        for numbers, found in progress(batches, f"{stage.name} {asked.subject}"):
            items.add([_row(asked, stage, number, values) for number, values in zip(numbers, found, strict=True)])
    total = sum(len(asked.items) for asked in subjects)
    print(f"{stage.name}: {total} items" + (f", {had} of them from an earlier run" if had else ""), flush=True)


def _row(asked, stage, number, values):
    item = asked.items[number]
    if not all(map(math.isfinite, values)):
        what = f"the adapter {stage.adapter}" if stage.adapter else "the model"
        raise LabError(
            f"{item.where}: {what} gives log-likelihoods that are not finite; train or convert it again"
        )
    return row_of(asked.task, item, values, kmmlu.pick(values))
