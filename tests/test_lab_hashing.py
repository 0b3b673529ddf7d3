import hashlib
import os
import signal
import time
from types import SimpleNamespace

import pytest

from lab import conversion_report, conversion_run
from lab.cli import LabError
from lab.hashing import BLOCK, Hashing


def test_it_is_the_hash_of_the_file(tmp_path):
    contents = [b"", b"a", bytes(range(256)) * (BLOCK // 128) + b"end"]
    with Hashing(2) as pool:
        for place, content in enumerate(contents):
            (tmp_path / str(place)).write_bytes(content)
        found = pool.map(pool.sha256, [tmp_path / str(place) for place in range(len(contents))])
        assert list(found) == [hashlib.sha256(content).hexdigest() for content in contents]


def of_the_source(folder):
    plan = SimpleNamespace(source=SimpleNamespace(folder=folder, digests={}))
    with conversion_run.SourceHashes(plan, SimpleNamespace(said=lambda kind: {})) as hashes:
        hashes.wait(["shard"])


@pytest.mark.parametrize(
    "work", [of_the_source, lambda folder: conversion_report.compare(folder, {"shard": ""}, "result")]
)
def test_ctrl_c_waits_for_no_file_to_be_hashed(tmp_path, work):
    """It had waited for whole shards: half a minute each from an external disk."""
    with open(tmp_path / "shard", "wb") as file:
        os.truncate(file.fileno(), 64 << 30)  # a hole: minutes to hash, no disk to hold
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            work(tmp_path)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 20


def test_a_source_that_cannot_be_hashed_is_named(tmp_path):
    (tmp_path / "shard").mkdir()
    with pytest.raises(LabError, match="shard: cannot read .*; download this file again"):
        of_the_source(tmp_path)
