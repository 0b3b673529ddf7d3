"""The training loop, and what it needs: loss, gradients, evaluation. One loss everywhere: nats per trained token.

What a run is at any moment is `Updates.tensors()` and a `RunState`; both go into a checkpoint, and nothing else matters.
Letters: B batch, T tokens.
"""

import math
import time

from lab.device import computes_in_float32, mx  # isort: skip  (first: it puts the fast BLAS in front)
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map, tree_map_with_path
from mlx_lm.models import gemma2, glm4, llama

from lab import cpu_gemma, cpu_llama, cpu_pointwise, ranks, schedules, signals
from lab.cli import Diverged, LabError
from lab.epochs import steps_of
from lab.joining import Joining

OPTIMIZERS = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "muon": optim.Muon,
    "sgd": optim.SGD,
    "adafactor": optim.Adafactor,
}
HEAD_APART = (
    gemma2.Model,
    glm4.Model,
    llama.Model,
)  # stock models of which `head` can be applied where it is read
CPU_PATHS = (cpu_gemma, cpu_llama)


def make_optimizer(settings, slowed=lambda: 1.0):
    """The optimizer of `settings`, its rate as lab.schedules plans it; `slowed` gives what that is multiplied by now."""
    planned = schedules.learning_rate(settings)

    def rate(made):
        return mx.array(planned(made) if callable(planned) else planned) * slowed()

    options = dict(settings.optimizer_config.get(settings.optimizer, {}))
    if settings.optimizer in ("adam", "adamw"):
        options.setdefault("bias_correction", True)
    try:
        return OPTIMIZERS[settings.optimizer](learning_rate=rate, **options)
    except KeyError:
        raise LabError(f"optimizer {settings.optimizer!r}; use one of {', '.join(OPTIMIZERS)}") from None
    except TypeError as error:
        raise LabError(f"optimizer_config of {settings.optimizer}: {error}; see mlx.optimizers") from error


def logits_at(model, inputs, places, cache=None):
    """Logits (N, V) float32 at the flat positions `places` (N,) of inputs (B, T), which follow what `cache` holds.

    The head is computed only there where the model lets us in: with masked prompts that is a third of the positions.
    """
    if not isinstance(model, HEAD_APART):
        logits = model(inputs, cache=cache)
        return logits.reshape(-1, logits.shape[-1])[places].astype(mx.float32)
    hidden = states(model, inputs, cache)
    hidden = hidden.reshape(-1, hidden.shape[-1])[places]
    return head(model, hidden).astype(mx.float32)


def head(model, hidden):
    """Logits (N, V) of a HEAD_APART model for (N, H), what its layers and last norm make."""
    logits = model.lm_head(hidden) if "lm_head" in model else model.model.embed_tokens.as_linear(hidden)
    cap = getattr(model, "final_logit_softcapping", None)
    if cap is None:
        return logits
    return cpu_pointwise.softcap(logits, cap) if computes_in_float32() else mx.tanh(logits / cap) * cap


def states(model, inputs, cache=None):
    """What the head of a HEAD_APART model is applied to, (B, T, H) or (B x T, H), for inputs (B, T)."""
    path = next((path for path in CPU_PATHS if path.knows(model)), None)
    return path.hidden(model, inputs, cache) if path else model.model(inputs, cache=cache)


def summed_loss(model, inputs, places, targets, weights):
    """The sum over trained tokens of -log p(target), in nats; inputs (B, T), the others (N,), see Batch.trained."""
    cross_entropy = cpu_pointwise.cross_entropy if computes_in_float32() else nn.losses.cross_entropy
    return (cross_entropy(logits_at(model, inputs, places), targets) * weights).sum()


def arrays(batch):
    """What summed_loss takes of a Batch, as MLX arrays."""
    return mx.array(batch.inputs), *map(mx.array, batch.trained())


def evaluate(model, batches):
    """The loss in nats per trained token over all `batches`, with dropout off; the model's mode is put back."""
    was_training = model.training
    model.eval()
    total = tokens = 0.0
    for batch in batches:
        own = ranks.share(batch)
        total += ranks.total(summed_loss(model, *arrays(own)).item() if own.rows else 0.0)
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
        self.timed, self.seconds, self.rows = 0, 0.0, []
        self.joining = Joining(model.trainable_parameters(), settings)
        optimizer.init(self.joining.join(model.trainable_parameters()))

    def __call__(self, update):
        """Make update number `update` (from 0); returns (mean loss in nats/token, trained tokens, learning rate).

        Raises Diverged, before the update, when the loss or the gradient is not finite.
        """
        started = time.perf_counter()
        total, tokens, gradient = self._gradient(update)
        norm = mx.sqrt(sum((value.astype(mx.float32) ** 2).sum() for _, value in tree_flatten(gradient)))
        self._refuse_non_finite(total, norm.item())
        if 0 < self.settings.max_grad_norm < norm.item():
            gradient = tree_map(lambda value: value * (self.settings.max_grad_norm / norm), gradient)
        trained = self.joining.join(self.model.trainable_parameters())
        self.model.update(self.joining.part(self.optimizer.apply_gradients(gradient, trained)))
        mx.eval(self.model.trainable_parameters(), self.optimizer.state)
        if 0 < self.settings.clear_cache_threshold < mx.get_cache_memory():
            mx.clear_cache()
        self.timed, self.seconds = self.timed + tokens, self.seconds + time.perf_counter() - started
        return total / tokens, tokens, float(self.optimizer.learning_rate)

    def _gradient(self, update):
        """(summed loss, trained tokens, mean gradient) of an update's micro-batches."""
        micro = self.settings.grad_accumulation_steps
        mx.random.seed(self.settings.seed * 1_000_003 + update + ranks.OWN_DROPOUT * ranks.rank())
        total, tokens, gradient, self.rows = mx.array(0.0), 0.0, None, []
        for step in steps_of(update, self.schedule.batches_per_epoch, micro):
            batch = self.schedule.batch(step)
            loss, part = self._of_rows(ranks.share(batch))
            part = self.joining.join(part)
            gradient = part if gradient is None else tree_map(mx.add, gradient, part)
            total, tokens = total + loss, tokens + float(batch.weights.sum())
            self.rows += batch.rows
            mx.eval(total, gradient)
        total, gradient = ranks.total(total.item()), ranks.summed(gradient)
        return total, int(tokens), tree_map(lambda value: value / tokens, gradient)

    def _of_rows(self, batch):
        """(summed loss, its gradient) of a batch, of which a rank may have no row."""
        if batch.rows:
            return self.loss_and_gradient(self.model, *arrays(batch))
        return mx.array(0.0), tree_map(mx.zeros_like, self.model.trainable_parameters())

    def _refuse_non_finite(self, loss, norm):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(
                f"loss {loss}, gradient norm {norm}; the next update was not made and nothing of it was saved; "
                "use a lower --learning-rate"
            )

    def circumstances(self):
        """The rate and the rows of the last update, in words."""
        rows = ", ".join(self.schedule.sequences[row].where for row in self.rows)
        return f"learning rate {float(self.optimizer.learning_rate):g}" + (f", rows {rows}" if rows else "")

    def tensors(self):
        """Trained weights and optimizer state, {name: array}: what goes into a checkpoint. Raises Diverged: not finite."""
        trees = {"weights": self.model.trainable_parameters(), "optimizer": self.optimizer.state}
        found = {f"{part}.{name}": value for part, tree in trees.items() for name, value in tree_flatten(tree)}
        if bad := sum(not mx.all(mx.isfinite(value)).item() for value in found.values()):
            raise Diverged(f"{bad} tensors are not finite; nothing of them was saved; use a lower --learning-rate")
        return found

    def restore(self, tensors):
        """Put what `tensors()` gave back."""
        weights = {name: tensors[f"weights.{name}"] for name, _ in tree_flatten(self.model.trainable_parameters())}
        self.model.load_weights(list(weights.items()), strict=False)
        self.optimizer.state = tree_map_with_path(
            lambda name, _: mx.array(tensors[f"optimizer.{name}"]), self.optimizer.state
        )

    def step_back(self, tensors):
        """Put weights and optimizer state back, but for the count of updates, which the schedule goes by."""
        self.restore({**tensors, "optimizer.step": self.optimizer.step})

    def speed(self):
        """Trained tokens a second since the last call, evaluations and checkpoints not counted."""
        tokens, seconds, self.timed, self.seconds = self.timed, self.seconds, 0, 0.0
        return tokens / seconds if seconds else 0.0


def train(updates, measure, state, keeper):
    """The loop: evaluate, update and report, until the iterations or the patience are used up.

    `measure()` gives {"valid_loss", "recall", "guard_loss"}; `keeper` prints and saves, see recorder.Recorder. Where a
    signal asks to stop, all is saved and signals.Stopped raised; the same loop goes on from what was saved.
    """
    settings = updates.settings
    updates.model.train()
    while True:
        if state.due(settings.steps_per_eval, settings) and state.evaluated < state.iteration:
            try:
                with ranks.giving_up():
                    found = measure()
            except signals.Interrupted:
                keeper.leave(state)
            point = state.judge(settings, found)
            if point.get("stepped_back"):
                updates.step_back(keeper.inside)
            keeper.evaluated(state, point)
        if state.ended(settings):
            return
        if ranks.asked():
            keeper.leave(state)
        state.count(*updates(state.iteration))
        if state.due(settings.steps_per_report, settings):
            keeper.trained(state.training_point(), updates.speed())
        if settings.save_every and state.iteration % settings.save_every == 0:
            keeper.copy(state)
        if ranks.asked():
            keeper.leave(state)
