"""A progress bar on a terminal, a plain line now and then elsewhere."""

import sys
import time

PLAIN_SECONDS = 30  # between plain lines where there is no terminal


def progress(items, title):
    """Iterate over `items` (with a length), showing how far it is: a rich bar on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, title, console=Console(stderr=True))
        return
    started = said = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= PLAIN_SECONDS:
            left = (now - started) / number * (len(items) - number)
            print(f"{title}: {number}/{len(items)}, about {left:.0f} s left", file=sys.stderr, flush=True)
            said = now


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
