"""Several processes, on one machine or more, that train as one: the same numbers on every rank, so the same decisions.

The batch stays the whole one: each rank takes its share of the rows, and sums over rows (loss, gradient) are summed over
ranks before anything is divided or decided. The first rank alone writes and speaks. In a process that was started alone
everything here is the identity. Letters: B rows of a batch, R ranks, T tokens.
"""

import json
import os
import sys
import traceback
from contextlib import contextmanager, nullcontext

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from lab import launched, peers, signals
from lab.batches import Batch
from lab.cli import USER_ERROR, LabError, finish

AT_ONCE = 8 << 20  # numbers of a gradient that are summed over ranks in one go: a copy of 32 MiB
OWN_DROPOUT = 1_000_000_007  # apart from all seeds of steps: each rank drops other numbers of its rows
_now = {"peers": None, "stop": False, "breaks": False}


def run(work):
    """The exit code of `work()`, done by all ranks together: they end with the same code, and an error is said once."""
    if launched.size() == 1:
        return work()
    _join()
    if launched.rank():
        return _follow(work)
    code = USER_ERROR
    try:
        code = finish(lambda _: work())
    finally:
        _now["peers"].end(code)
    return code


def _follow(work):
    try:
        code, words = work(), ""
    except LabError as error:
        code, words = error.exit_code, f"error: rank {launched.rank()}: {error}"
    except BaseException:
        code, words = USER_ERROR, f"rank {launched.rank()}: {traceback.format_exc()}"
    _now["peers"].end(code or 0, words)
    return code


def _join():
    """Find the other ranks. MLX waits for them without end; a signal still ends this process, see signals."""
    mx.distributed.init(strict=True, backend=launched.backend())
    server, place = peers.listen() if first() else (None, None)
    _now["peers"] = peers.Peers(json.loads(told(json.dumps(place).encode())), server)
    signals.leave_by(_leave)
    if first():
        sys.stdout, sys.stderr = _Heard(sys.stdout), _Heard(sys.stderr)
    else:
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (until the end)


def _leave(words):
    """A signal ends this rank where nothing is to be saved: so it ends all."""
    if first():
        _now["peers"].leave(signals.STOPPED, words)
    _now["peers"].end(signals.STOPPED, words, at_once=True)


class _Heard:
    """An output whose reader may go away before the run: from then on words go nowhere, and the run is asked to stop."""

    def __init__(self, stream):
        stream.reconfigure(line_buffering=True)
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        return self._try(self._stream.write, text)

    def flush(self):
        return self._try(self._stream.flush)

    def _try(self, act, *given):
        try:
            return act(*given)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            peers.ask_to_stop()
            return None


def size():
    """How many ranks there are, R."""
    return launched.size()


def rank():
    """This process's number among them, from 0."""
    return launched.rank()


def first():
    """Whether this is the rank that writes and speaks."""
    return launched.rank() == 0


def name_run(name):
    """What a message about a rank that died calls the run."""
    if _now["peers"]:
        _now["peers"].run = name


def _summed(values):
    """An array summed over ranks, the same bits on all of them."""
    with _now["peers"].collective() if _now["peers"] else nullcontext():
        found = mx.distributed.all_sum(values)
        mx.eval(found)
        return found


def share(batch):
    """This rank's rows of a Batch, every R-th; perhaps none. Rows keep the batch's width."""
    if size() == 1:
        return batch
    own = slice(launched.rank(), None, size())
    return Batch(batch.inputs[own], batch.targets[own], batch.weights[own], batch.rows[own])


def share_of(rows):
    """The most rows that a rank gets of a batch of `rows`."""
    return -(-rows // size())


def split(items):
    """This rank's part of a list."""
    return items if size() == 1 else items[launched.rank() :: size()]


def total(value):
    """The sum over ranks of a float. It carries whether a signal has asked any rank to stop, see `asked`.

    Raises signals.Interrupted, on all ranks, for that in `giving_up()`.
    """
    if size() == 1:
        return value
    found, stops = _summed(mx.array([value, float(signals.asked())], dtype=mx.float32)).tolist()
    _now["stop"] = _now["stop"] or stops > 0
    if _now["stop"] and _now["breaks"]:
        raise signals.Interrupted
    return found


def asked():
    """Whether a signal has asked any rank to stop, as all of them know it: as of the last `total`."""
    return signals.asked() if size() == 1 else _now["stop"]


@contextmanager
def giving_up():
    """Work that is simply done again after a resume; a signal to any rank breaks it off on all, at their next `total`."""
    if size() == 1:
        with signals.giving_up():
            yield
        return
    if _now["stop"]:
        raise signals.Interrupted
    _now["breaks"] = True
    try:
        yield
    finally:
        _now["breaks"] = False


def summed(tree):
    """A tree of arrays, this rank's part of a sum, summed over ranks."""
    if size() == 1:
        return tree
    named, found, waiting = tree_flatten(tree), [], []
    for number, (name, value) in enumerate(named, 1):
        waiting.append((name, value))
        if number == len(named) or sum(value.size for _, value in waiting) >= AT_ONCE:
            found += _summed_together(waiting)
            waiting = []
    return tree_unflatten(found)


def _summed_together(named):
    """[(name, array)] summed over ranks as one vector of float32: a message has a cost of its own."""
    flat = mx.concatenate([value.reshape(-1).astype(mx.float32) for _, value in named])
    mx.eval(flat)  # not while the others wait
    sums = mx.split(_summed(flat), np.cumsum([value.size for _, value in named])[:-1].tolist())
    return [
        (name, part.reshape(value.shape).astype(value.dtype))
        for (name, value), part in zip(named, sums, strict=True)
    ]


def told(data=None):
    """The first rank's bytes `data`, on all ranks; the others give None."""
    if size() == 1:
        return data
    length = int(_summed(mx.array([len(data) if first() else 0], dtype=mx.int64)).item())
    own = np.frombuffer(data, dtype=np.uint8) if first() else np.zeros(length, dtype=np.uint8)
    pieces = [_summed(mx.array(own[start : start + AT_ONCE])) for start in range(0, length, AT_ONCE)]
    return b"".join(np.array(piece).tobytes() for piece in pieces)


def told_tensors(tensors=None):
    """The first rank's {name: array}, to the bit, on all ranks; the others give None."""
    listed = tensors and [[name, list(value.shape), _name(value.dtype)] for name, value in sorted(tensors.items())]
    found = {}
    for name, shape, kind in json.loads(told(json.dumps(listed or []).encode())):
        raw = np.array(tensors[name].reshape(-1).view(mx.uint8)).tobytes() if first() else None
        found[name] = mx.array(np.frombuffer(told(raw), dtype=np.uint8)).view(getattr(mx, kind)).reshape(shape)
    return found


def _name(dtype):
    return str(dtype).rpartition(".")[2].replace("bool", "bool_")


def begin_alike(model):
    """Give all ranks the first one's new trained weights: other machines may draw others."""
    if size() > 1:
        named = told_tensors(dict(tree_flatten(model.trainable_parameters())) if first() else None)
        model.load_weights(list(named.items()), strict=False)


def refuse_different(model):
    """Raise LabError where the ranks' trained weights are not the same to the bit, as all steps here leave them."""
    if size() == 1:
        return
    kinds = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}
    sums = [
        value.view(kinds[value.dtype.size]).sum().item() for _, value in tree_flatten(model.trainable_parameters())
    ]
    own = sum((2 * place + 1) * found for place, found in enumerate(sums)) % 2**31
    seen = _summed(mx.array([own * (rank == launched.rank()) for rank in range(size())], dtype=mx.int64)).tolist()
    if others := [rank for rank, found in enumerate(seen) if found != seen[0]]:
        raise LabError(
            f"rank {others[0]} holds other weights than rank 0: a machine computed, or the network carried, something "
            "else; go on from the last checkpoint with --resume, on machines of one kind"
        )
