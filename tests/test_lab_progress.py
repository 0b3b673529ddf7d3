"""One live line on a terminal, plain lines elsewhere: checked on a real pseudo-terminal."""

import os
import pty
import re
import subprocess
import sys

import pytest

SCRIPT = """
from lab.progress import Live
with Live(20) as live:
    live.evaluated(0, "validation loss 3.0000 nats/token", 3.0)
    live.trained(10, 1.5, 1e-4, 7012.3, 1.25e9)
    live.evaluated(20, "validation loss 2.0000 nats/token  [best]", 2.0)
"""

BYTES = """
import time
from lab import progress
progress.PLAIN_SECONDS = 0.1
with progress.bytes_progress(4_000_000_000, "converting") as told:
    for _ in range(2):
        time.sleep(0.2)
        told(500_000_000)
    time.sleep(0.2)
"""


def test_plain_lines_where_there_is_no_terminal():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [
        "iteration 0: validation loss 3.0000 nats/token",
        "iteration 10: train loss 1.5000, rate 1.00e-04, 7012 trained tokens/s, 1.25 GB",
        "iteration 20: validation loss 2.0000 nats/token  [best]",
    ]


def test_one_live_line_on_a_terminal():
    ours, theirs = pty.openpty()
    size = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    run = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=theirs, env=size)
    assert run.wait(30) == 0
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert re.search(
        r"10/20  train 1\.5000  valid 3\.0000  rate 1\.00e-04  7012 trained tokens/s  1\.25 GB  0:0\d left", shown
    )
    assert "validation loss 2.0000 nats/token  [best]" in shown  # such lines stay
    assert shown.count("\n") <= 4  # the live line is written over, not repeated
    assert shown.rstrip().endswith("\x1b[2K")  # and gone in the end


def test_bytes_their_speed_and_the_time_left_in_plain_lines():
    run = subprocess.run([sys.executable, "-c", BYTES], capture_output=True, text=True, check=True)
    lines = run.stderr.splitlines()
    found = re.fullmatch(r"converting: 1\.0 of 4\.0 GB, ([\d,]+) MB/s, about (\d+) s left", lines[1])
    rate, left = (int(number.replace(",", "")) for number in found.groups())
    assert 50 < rate <= 2500 and abs(left - 3000 / rate) <= 1


def test_a_title_is_shown_as_it_is_on_a_terminal():
    """A path may hold what rich takes for its markup."""
    script = """from lab import progress
list(progress.progress([1, 2], "checking q[/b]/out"))
with progress.bytes_progress(2, "fetching q[/b]/out") as told: told(2)"""
    ours, theirs = pty.openpty()
    size = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    run = subprocess.Popen([sys.executable, "-c", script], stderr=theirs, env=size)
    assert run.wait(30) == 0
    os.close(theirs)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", os.read(ours, 1 << 16).decode())
    os.close(ours)
    assert "checking q[/b]/out" in shown and "fetching q[/b]/out" in shown


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here: only Linux has it")
def test_a_full_disk_behind_the_log_ends_no_work():
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", f"{BYTES}\nprint('done')"], stdout=subprocess.PIPE, stderr=full
        )
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_bytes_their_speed_and_the_time_left_on_a_terminal():
    ours, theirs = pty.openpty()
    size = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    run = subprocess.Popen([sys.executable, "-c", BYTES], stderr=theirs, env=size)
    assert run.wait(30) == 0
    os.close(theirs)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", os.read(ours, 1 << 16).decode())
    os.close(ours)
    assert re.search(r"converting .*1\.0/4\.0 GB .*\d [GM]B/s .*0:0\d:\d\d", shown), shown
