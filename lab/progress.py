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
