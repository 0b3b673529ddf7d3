"""The training loop, and what it needs: loss, gradients, evaluation. One loss everywhere: nats per trained token.

Letters: B batch, T tokens.
"""

import math
import time
from dataclasses import asdict, dataclass

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import glm4, llama
from mlx_lm.tuner.utils import build_schedule

from lab.cli import Diverged, LabError

OPTIMIZERS = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "muon": optim.Muon,
    "sgd": optim.SGD,
    "adafactor": optim.Adafactor,
}
HEAD_APART = (llama.Model, glm4.Model)  # stock models whose head is a plain product of `model.model`'s output


@dataclass(frozen=True)
class Report:
    """One point of the curve, after `iteration` updates. Losses in nats per trained token; None: not measured here."""

    iteration: int
    train_loss: float | None = None
    valid_loss: float | None = None
    recall: float | None = None
    learning_rate: float | None = None
    trained_tokens: int = 0
    tokens_per_second: float | None = None
    best: bool = False

    def row(self):
        """The point as the curve file keeps it: only what a repeated run would measure again."""
        content = asdict(self)
        content.pop("tokens_per_second")
        return {key: value for key, value in content.items() if value is not None}


def make_optimizer(settings):
    """The optimizer of `settings`, its rate a constant or mlx-lm's lr_schedule, counted in optimizer updates."""
    rate = build_schedule(settings.lr_schedule) if settings.lr_schedule else settings.learning_rate
    options = dict(settings.optimizer_config.get(settings.optimizer, {}))
    if settings.optimizer in ("adam", "adamw"):
        options.setdefault("bias_correction", True)
    try:
        return OPTIMIZERS[settings.optimizer](learning_rate=rate, **options)
    except KeyError:
        raise LabError(f"optimizer {settings.optimizer!r}; use one of {', '.join(OPTIMIZERS)}") from None
    except TypeError as error:
        raise LabError(f"optimizer_config of {settings.optimizer}: {error}; see mlx.optimizers") from error


def logits_at(model, inputs, places):
    """Logits (N, V) float32 at the flat positions `places` (N,) of inputs (B, T).

    The head is computed only there where the model lets us in: with masked prompts that is a third of the positions.
    """
    if not isinstance(model, HEAD_APART):
        logits = model(inputs)
        return logits.reshape(-1, logits.shape[-1])[places].astype(mx.float32)
    hidden = model.model(inputs)
    hidden = hidden.reshape(-1, hidden.shape[-1])[places]
    tied = model.args.tie_word_embeddings
    return (model.model.embed_tokens.as_linear(hidden) if tied else model.lm_head(hidden)).astype(mx.float32)


def summed_loss(model, inputs, places, targets, weights):
    """The sum over trained tokens of -log p(target), in nats; inputs (B, T), the others (N,), see Batch.trained."""
    return (nn.losses.cross_entropy(logits_at(model, inputs, places), targets) * weights).sum()


def arrays(batch):
    """What summed_loss takes of a Batch, as MLX arrays."""
    return mx.array(batch.inputs), *map(mx.array, batch.trained())


def evaluate(model, batches):
    """The loss in nats per trained token over all `batches`, with dropout off; the model's mode is put back."""
    was_training = model.training
    model.eval()
    total = tokens = 0.0
    for batch in batches:
        total += summed_loss(model, *arrays(batch)).item()
        tokens += float(batch.weights.sum())
    model.train(was_training)
    loss = total / tokens
    if not math.isfinite(loss):
        raise Diverged(f"evaluation loss is {loss}; nothing of it was saved; use a lower --learning-rate")
    return loss


class Updates:
    """One optimizer update at a time: gradients summed over micro-batches, divided by all their trained tokens.

    So a long batch counts for its tokens, and no window is dropped. Dropout's randomness is a function of (seed, step).
    """

    def __init__(self, model, optimizer, schedule, settings):
        self.model, self.optimizer, self.schedule, self.settings = model, optimizer, schedule, settings
        self.loss_and_gradient = nn.value_and_grad(model, summed_loss)

    def __call__(self, update):
        """Make update number `update` (from 0); returns (mean loss in nats/token, trained tokens).

        Raises Diverged, before the update, when the loss or the gradient is not finite.
        """
        micro = self.settings.grad_accumulation_steps
        mx.random.seed(self.settings.seed * 1_000_003 + update)
        total, tokens, gradient, rows = mx.array(0.0), 0.0, None, []
        for step in range(update * micro, (update + 1) * micro):
            batch = self.schedule.batch(step)
            loss, part = self.loss_and_gradient(self.model, *arrays(batch))
            gradient = part if gradient is None else tree_map(mx.add, gradient, part)
            total, tokens = total + loss, tokens + float(batch.weights.sum())
            rows += batch.rows
            mx.eval(total, gradient)
        gradient = tree_map(lambda value: value / tokens, gradient)
        norm = mx.sqrt(sum((value.astype(mx.float32) ** 2).sum() for _, value in tree_flatten(gradient)))
        self._refuse_non_finite(update, total.item(), norm.item(), rows)
        if 0 < self.settings.max_grad_norm < norm.item():
            gradient = tree_map(lambda value: value * (self.settings.max_grad_norm / norm), gradient)
        self.optimizer.update(self.model, gradient)
        mx.eval(self.model.trainable_parameters(), self.optimizer.state)
        return total.item() / tokens, int(tokens)

    def _refuse_non_finite(self, update, loss, norm, rows):
        if math.isfinite(loss) and math.isfinite(norm):
            return
        names = ", ".join(self.schedule.sequences[row].where for row in rows)
        rate = float(self.optimizer.learning_rate)
        raise Diverged(
            f"iteration {update + 1}: loss {loss}, gradient norm {norm}, learning rate {rate:g}, rows {names}; "
            "this update was not made and nothing of it was saved; use a lower --learning-rate"
        )


def figure_of(settings, found):
    """What early stopping looks at, lower is better: the validation loss, or the share of facts not recalled."""
    return found["valid_loss"] if settings.early_stop_on == "loss" else 1 - found["recall"]


def train(updates, validate, stopping, report):
    """The loop: update, now and then report and validate, until the iterations or the patience are used up.

    `validate()` gives {"valid_loss", "recall"}, `stopping` is an EarlyStopping, `report` takes each Report, keeps the
    adapter when `best` is set, and has `after_update(iteration)`. Returns the number of updates made.
    """
    settings, model = updates.settings, updates.model
    losses, tokens, all_tokens, started = 0.0, 0, 0, time.perf_counter()
    found = validate()
    if settings.resume_adapter_file:  # the adapter that is resumed may be the best there will be
        stopping.update(0, figure_of(settings, found))
    report(Report(0, **found, best=stopping.is_best))
    model.train()
    for iteration in range(1, settings.iters + 1):
        rate = float(updates.optimizer.learning_rate)
        loss, trained = updates(iteration - 1)
        losses, tokens, all_tokens = losses + loss * trained, tokens + trained, all_tokens + trained
        report.after_update(iteration)
        last = iteration == settings.iters
        if iteration % settings.steps_per_report == 0 or last:
            speed = tokens / (time.perf_counter() - started)
            shown = {"learning_rate": rate, "trained_tokens": all_tokens, "tokens_per_second": speed}
            report(Report(iteration, losses / tokens, **shown))
            losses, tokens, started = 0.0, 0, time.perf_counter()
        if iteration % settings.steps_per_eval == 0 or last:
            paused = time.perf_counter()
            found = validate()
            stop = stopping.update(iteration, figure_of(settings, found))
            report(Report(iteration, **found, trained_tokens=all_tokens, best=stopping.is_best))
            if stop:
                return iteration
            started += time.perf_counter() - paused
    return settings.iters
