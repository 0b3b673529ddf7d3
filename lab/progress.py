"""A progress bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from contextlib import contextmanager

PLAIN_SECONDS = 30  # between plain lines where there is no terminal


def progress(items, title):
    """Iterate over `items` (with a length), showing how far it is: a rich bar on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, title, console=Console(stderr=True))
        return
    told = _plain_lines(title, len(items), lambda done: f"{done}/{len(items)}")
    for item in items:
        yield item
        told(1)


@contextmanager
def bytes_progress(total, title):
    """A function that takes how many bytes were done; it shows how far that is of `total`, how fast, how long still."""
    if not sys.stderr.isatty():
        yield _plain_lines(title, total, lambda done: f"{done / 1e9:.1f} of {total / 1e9:.1f} GB")
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.DownloadColumn())
    columns += (rich.TransferSpeedColumn(), rich.TimeRemainingColumn())
    with rich.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda nbytes: bar.update(task, advance=nbytes)


def _plain_lines(title, total, in_words):
    """A function that takes how much more was done, and says so every PLAIN_SECONDS."""
    started = said = time.monotonic()
    done = 0

    def told(amount):
        nonlocal said, done
        done, now = done + amount, time.monotonic()
        if now - said >= PLAIN_SECONDS:
            left = (now - started) / done * (total - done)
            print(f"{title}: {in_words(done)}, about {left:.0f} s left", file=sys.stderr, flush=True)
            said = now

    return told
