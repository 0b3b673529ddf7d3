"""Connections between ranks: who is let in, and what is said where one cannot be reached."""

import json
import socket

import pytest

from lab import launched, peers
from lab.cli import LabError


@pytest.fixture
def two_here(monkeypatch):
    monkeypatch.setattr(launched, "first_host", lambda: "127.0.0.1")
    monkeypatch.setattr(launched, "size", lambda: 2)


def test_a_stranger_is_not_taken_for_a_rank(two_here):
    server, place = peers.listen()
    ranks = peers.Peers.__new__(peers.Peers)
    ranks.connections = {}
    stranger, rank = peers.connect(place), peers.connect(place)
    stranger.sendall(b'{"secret": "guessed", "rank": 1}\n')
    rank.sendall(json.dumps({"secret": place["secret"], "rank": 1}).encode() + b"\n")
    ranks._accept(server, place["secret"])
    assert ranks.connections[1].getpeername() == rank.getsockname()
    for connection in (stranger, rank, ranks.connections[1]):
        connection.close()


def test_a_first_rank_that_cannot_be_reached_is_one_line(two_here):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(LabError, match=f"cannot reach rank 0 at 127.0.0.1, port {port}; open"):
        peers.connect({"hosts": ["127.0.0.1"], "port": port})


def test_ranks_that_do_not_come_are_one_line(two_here, monkeypatch):
    monkeypatch.setattr(peers, "JOINING", 0.05)
    server, place = peers.listen()
    ranks = peers.Peers.__new__(peers.Peers)
    ranks.connections = {}
    with pytest.raises(LabError, match="not all ranks reached rank 0"):
        ranks._accept(server, place["secret"])
