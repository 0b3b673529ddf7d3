"""What a process learns of its ranks from the environments that mlx.launch makes."""

import json

import pytest

from lab import launched


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No ranks, and nothing remembered before or after."""
    for name in (*launched.BACKENDS, "MLX_RANK", "MLX_WORLD_SIZE", launched.PREFIX):
        monkeypatch.delenv(name, raising=False)
    launched.size.cache_clear()
    launched._ring.cache_clear()
    yield
    launched.size.cache_clear()
    launched._ring.cache_clear()


def ring(monkeypatch, path, *hosts):
    path.write_text(json.dumps([[f"{host}:{5000 + place}"] for place, host in enumerate(hosts)]) if hosts else "")
    monkeypatch.setenv("MLX_HOSTFILE", str(path))
    monkeypatch.setenv("MLX_RANK", "1" if hosts else "0")


def test_a_process_started_alone_is_the_first_of_one(tmp_path, monkeypatch):
    assert (launched.rank(), launched.size(), launched.command()) == (0, 1, [])
    launched.size.cache_clear()
    ring(monkeypatch, tmp_path / "hosts")  # mlx.launch -n 1
    assert (launched.rank(), launched.size(), launched.command()) == (0, 1, [])


def test_a_ring_on_this_machine_and_one_on_several(tmp_path, monkeypatch):
    ring(monkeypatch, tmp_path / "hosts", "127.0.0.1", "127.0.0.1")
    assert (launched.rank(), launched.size(), launched.backend()) == (1, 2, "ring")
    assert launched.command()[1:] == ["-n", "2", "--backend", "ring", "--"]
    launched._ring.cache_clear()
    ring(monkeypatch, tmp_path / "hosts", "192.168.1.10", "192.168.1.11")
    assert launched.first_host() == "192.168.1.10"
    assert launched.command()[1:] == ["--hostfile", "HOSTFILE", "--backend", "ring", "--"]


def test_nccl(monkeypatch):
    for name, value in (("MLX_RANK", "3"), ("MLX_WORLD_SIZE", "4"), ("NCCL_HOST_IP", "10.0.0.1")):
        monkeypatch.setenv(name, value)
    assert (launched.rank(), launched.size(), launched.backend()) == (3, 4, "nccl")
    assert launched.first_host() == "10.0.0.1"


def test_what_lab_launch_says_is_the_command(tmp_path, monkeypatch):
    ring(monkeypatch, tmp_path / "hosts", "127.0.0.1", "127.0.0.1")
    monkeypatch.setenv(launched.PREFIX, "python -m lab.launch --ranks 2 --")
    assert launched.command() == ["python", "-m", "lab.launch", "--ranks", "2", "--"]
