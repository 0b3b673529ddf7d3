"""What every command at the top keeps: --help at once, without loading MLX; usage errors exit with 2."""

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = sorted(path.name for path in Path(__file__).parent.parent.glob("*.py"))
HEAVY = ("mlx.core", "mlx_lm", "transformers", "numpy", "torch")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_nothing_heavy(name):
    command = [sys.executable, "-X", "importtime", name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ")
    assert "Exit codes" in done.stdout
    imported = {
        line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
    }
    assert imported
    assert not imported & set(HEAVY)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_flag_is_a_usage_error(name):
    done = subprocess.run([sys.executable, name, "--no-such-flag"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
