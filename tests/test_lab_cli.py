"""How a command ends when what reads its output goes away."""

import os
import subprocess
import sys

import pytest

LONG = "for number in range(100000): print(number, flush=True)"
SHORT = "print('a few words')"


@pytest.mark.parametrize("body", [LONG, SHORT])
def test_a_closed_pipe_is_not_done(body):
    program = f"import sys; from lab.cli import finish\ndef main(argv=None):\n    {body}\nsys.exit(finish(main))"
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, text=True, env=buffered
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
