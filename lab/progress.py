"""A progress bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from contextlib import contextmanager, suppress

PLAIN_SECONDS = 30  # between plain lines where there is no terminal


def progress(items, title):
    """Iterate over `items` (with a length), showing how far it is: a rich bar on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import track

        yield from track(items, escape(title), console=Console(stderr=True))
        return
    told = _plain_lines(title, len(items), lambda done, rate: f"{done}/{len(items)}")
    for item in items:
        yield item
        told(1)


@contextmanager
def bytes_progress(total, title):
    """A function that takes how many bytes were done; it shows how far that is of `total`, how fast, how long still."""
    if not sys.stderr.isatty():
        yield bytes_lines(total, title)
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), rich.DownloadColumn())
    columns += (rich.TransferSpeedColumn(), rich.TimeRemainingColumn())
    with rich.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda nbytes: bar.update(task, advance=nbytes)


def bytes_lines(total, title):
    """As `bytes_progress`, in plain lines: beside a bar that is there already, too."""
    size = f"of {total / 1e9:.1f} GB"
    return _plain_lines(title, total, lambda done, rate: f"{done / 1e9:.1f} {size}, {rate / 1e6:,.0f} MB/s")


def _plain_lines(title, total, in_words):
    """A function that takes how much more was done, and says so every PLAIN_SECONDS.

    `in_words` takes how much is done in all, and how much in a second.
    """
    started = said = time.monotonic()
    done = 0

    def told(amount):
        nonlocal said, done
        done, now = done + amount, time.monotonic()
        if done > 0 and now - said >= PLAIN_SECONDS:
            rate = done / (now - started)
            left = (total - done) / rate
            with suppress(OSError):  # a full disk behind the log is no reason to end hours of work
                print(f"{title}: {in_words(done, rate)}, about {left:.0f} s left", file=sys.stderr, flush=True)
            said = now

    return told


class Live:
    """A run on one line that is written over on a terminal; plain lines elsewhere. A context manager.

    The line: iteration, train and validation loss in nats/token, rate, trained tokens/s, peak memory, time left.
    """

    def __init__(self, iterations, start=0):
        self.iterations, self.start, self.shown = iterations, start, {}
        self.began, self._screen = time.monotonic(), None

    def __enter__(self):
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live as Screen

            self._screen = Screen(console=Console(), auto_refresh=False, transient=True)
            self._screen.start()
        return self

    def __exit__(self, *_):
        if self._screen is not None:
            self._screen.stop()
            self._screen = None

    def trained(self, iteration, loss, rate, speed, memory):
        """Show the training's figures: `speed` in trained tokens/s, `memory` the peak in bytes."""
        self.shown |= {"train": f"{loss:.4f}", "rate": f"{rate:.2e}"}
        self.shown |= {"speed": f"{speed:.0f} trained tokens/s", "memory": f"{memory / 1e9:.2f} GB"}
        words = "train loss {train}, rate {rate}, {speed}, {memory}".format(**self.shown)
        self._show(iteration, f"iteration {iteration}: {words}")

    def evaluated(self, iteration, words, loss):
        """Show an evaluation: `words` stay on a line of their own, `loss` goes on the live line."""
        self.say(f"iteration {iteration}: {words}")
        self.shown["valid"] = f"{loss:.4f}"
        self._show(iteration, None)

    def say(self, text):
        """A line that stays."""
        if self._screen is not None:
            self._screen.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def _show(self, iteration, plain):
        if self._screen is not None:
            from rich.text import Text

            self._screen.update(Text(self._line(iteration), no_wrap=True, overflow="ellipsis"), refresh=True)
        elif plain:
            print(plain, flush=True)

    def _line(self, iteration):
        names = {"train": "train ", "valid": "valid ", "rate": "rate ", "speed": "", "memory": ""}
        words = [f"{name}{self.shown[key]}" for key, name in names.items() if key in self.shown]
        return "  ".join([f"{iteration}/{self.iterations}", *words, self._left(iteration)])

    def _left(self, iteration):
        made = iteration - self.start
        if made < 1:
            return ""
        seconds = (time.monotonic() - self.began) / made * (self.iterations - iteration)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"
