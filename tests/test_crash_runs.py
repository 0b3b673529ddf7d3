"""Ten real trainers killed at random moments, half of them inside a save; `make crashtest` kills 200."""

import tempfile
from pathlib import Path

from tests import crash_runs


def test_ten_kills_change_no_byte(capsys):
    with tempfile.TemporaryDirectory() as folder:  # on a real disk, as a user's runs are
        counts = crash_runs.crash(10, 0, Path(folder))
    with capsys.disabled():
        print(f" {dict(counts)}", end="")
    assert counts["in a save"] + counts["elsewhere"] == 10
    assert counts["in a save"] >= counts["aimed"] >= 1
    assert counts["resumes"] >= 5
    assert counts["identical"] == counts["runs"] >= 1
    assert counts["damaged"] == 0, "a kill leaves whole checkpoints, never damaged ones"
