"""A Chromium, where there is one, and what it makes of a page: pixels, and the width that a page needs on a phone."""

import html
import os
import re
import shutil
import subprocess
from pathlib import Path

NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "chrome",
    "google-chrome-stable",
)
ON_MACOS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
HOW = "no Chromium: `apt-get install chromium-headless-shell`, or Google Chrome on macOS, or CHROMIUM=/path/to/it"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage")
DARK = "--blink-settings=preferredColorScheme=0"
MEASURE = """<!doctype html><meta charset="utf-8"><iframe srcdoc="{page}" style="width:{width}px;height:700px;border:0"></iframe>
<script>addEventListener("load", () => {{
  const root = document.querySelector("iframe").contentDocument.documentElement;
  document.body.dataset.width = root.scrollWidth;
  document.body.dataset.height = root.scrollHeight;
}});</script>"""


def find():
    """The path of a Chromium, or None: $CHROMIUM, then what is on the path, then macOS's applications."""
    named = os.environ.get("CHROMIUM")
    found = [shutil.which(name) for name in (*([named] if named else ()), *NAMES)]
    return next((path for path in (*found, *ON_MACOS) if path and Path(path).is_file()), None)


def screenshot(chromium, page, target, size, *flags):
    """Write a PNG of the file `page` in a window of `size` pixels to `target`; returns it as an array (H, W, 4) of shares."""
    from matplotlib.image import imread

    call(chromium, page, f"--screenshot={target}", f"--window-size={size[0]},{size[1]}", *flags)
    return imread(target)


def size_on(chromium, page, width, folder):
    """(width, height) in pixels that the file `page` needs in a frame of `width` pixels."""
    outer = folder / "frame.html"
    text = html.escape(page.read_text(encoding="utf-8"), quote=True)
    outer.write_text(MEASURE.format(page=text, width=width), encoding="utf-8")
    dom = call(chromium, outer, "--dump-dom", "--virtual-time-budget=3000")
    return tuple(int(re.search(rf'<body[^>]* data-{name}="(\d+)"', dom).group(1)) for name in ("width", "height"))


def call(chromium, page, *flags):
    """What a headless Chromium prints on standard output for a page."""
    command = [chromium, *FLAGS, *flags, page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
