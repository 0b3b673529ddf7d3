"""One small TCP connection from every rank to the first: who has died, failed or stopped is known at once, by all.

The kernel closes a dead process's connection, and keep-alive finds a machine that went away. A rank waiting for the others
inside MLX cannot look after that itself, so a thread does, and ends the process. Messages are JSON, one a line:
a rank tells the first how its work ended, the first tells all the exit code of the run.
"""

import json
import os
import secrets
import select
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress

from lab import launched, signals
from lab.cli import USER_ERROR, LabError

STOPPED = signals.STOPPED
LOOK = 0.2  # seconds between two looks at what no connection tells
GRACE = 1.0  # seconds in which the first rank may find the fault that another one reports: then it is said once
JOINING, CONNECTING = 60, 20  # seconds for all other ranks to connect, and for one to reach an address
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPALIVE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # seconds, and tries


def listen():
    """The first rank's listening socket, and where the others find it; strangers do not know the secret.

    In a ring of cables only a neighbour reaches the first rank at its address in the ring: the host's name is the other way.
    """
    host = launched.first_host()
    server = socket.create_server((host if host.startswith("127.") else "", 0), backlog=launched.size())
    names = [host, socket.gethostname()]
    return server, {"hosts": names, "port": server.getsockname()[1], "secret": secrets.token_hex(16)}


def connect(place):
    """A connection to the first rank at what `listen` said. Raises LabError."""
    for host in place["hosts"]:
        with suppress(OSError):
            return socket.create_connection((host, place["port"]), timeout=CONNECTING)
    words = f"rank {launched.rank()} cannot reach rank 0 at {' or '.join(place['hosts'])}, port {place['port']}"
    raise LabError(f"{words}; open the machines' firewalls to each other")


class Peers:
    """The connections of this rank; `run` names what is trained, for the line that says how to go on."""

    def __init__(self, place, server=None):
        self.run, self.connections, self.reported = "the run", {}, {}
        self.failure, self.waiting, self.ending = None, None, threading.Event()
        self.parent = os.getppid()
        if server is not None:
            self._accept(server, place["secret"])
            launched.say_how_it_ended(f"pid {os.getpid()}")
        else:
            connection = connect(place)
            connection.sendall(_line(secret=place["secret"], rank=launched.rank()))
            self._take(0, connection)
        threading.Thread(target=self._watch, daemon=True).start()

    def _accept(self, server, secret):
        server.settimeout(JOINING)
        with server:
            while len(self.connections) < launched.size() - 1:
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    raise LabError("not all ranks reached rank 0; see what they say, and the firewalls") from None
                connection.settimeout(JOINING)
                if (rank := _introduced(connection, secret)) is None:
                    connection.close()
                else:
                    self._take(rank, connection)

    def _take(self, rank, connection):
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEP_ALIVE.items():
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self.connections[rank] = connection

    @contextmanager
    def collective(self):
        """Around work of all ranks together: one that fails alone leaves the others waiting there."""
        self.waiting = time.monotonic()
        try:
            yield
        except RuntimeError:  # MLX lost a peer: the thread knows more, and ends this process
            time.sleep(10 * GRACE)
            raise
        finally:
            self.waiting = None

    def end(self, code, words="", at_once=False):
        """This rank's work is over: the first tells all to end with `code`; another reports, and waits for that.

        `words` are what went wrong, said by the first where it does not find the same fault itself; `at_once` does not
        leave it the time. Only on the first rank does it return.
        """
        self.ending.set()
        for number in (signal.SIGINT, signal.SIGTERM):  # mlx.launch sends it to the rest when one has ended
            with suppress(ValueError):  # in a thread
                signal.signal(number, signal.SIG_IGN)
        if launched.rank() == 0:
            launched.say_how_it_ended(code)
            self._tell(code=code)
            return
        self._tell(code=code, words=words, at_once=at_once)
        threading.Event().wait()  # the thread ends this process

    def _tell(self, **said):
        for connection in self.connections.values():
            with suppress(OSError):
                connection.sendall(_line(**said))

    def _watch(self):
        """The thread: until the run is over, look after the others, and after the process that launched this one."""
        unread = dict.fromkeys(self.connections, b"")
        while True:
            ready, _, _ = select.select(list(self.connections.values()), [], [], LOOK)
            for rank in [rank for rank, connection in self.connections.items() if connection in ready]:
                data = _received(self.connections[rank])
                if not data:
                    self._lost(rank)
                *lines, unread[rank] = (unread[rank] + data).split(b"\n")
                for line in lines:
                    self._heard(rank, json.loads(line))
            self._say_failure()
            if os.getppid() != self.parent:  # mlx.launch was stopped: its ranks live on, but nobody hears them
                self.parent = os.getppid()
                ask_to_stop()

    def _heard(self, rank, said):
        if rank == 0:
            os._exit(said["code"])
        self.reported[rank] = said["code"]
        if said["words"] and self.failure is None:
            self.failure = (time.monotonic() - GRACE * said["at_once"], said["at_once"], said)

    def _say_failure(self):
        """Another rank failed: said here where this one, waiting for it, has not found the same fault."""
        if self.failure is None or self.ending.is_set():
            return
        since, at_once, said = self.failure
        waited = self.waiting is not None and time.monotonic() - max(self.waiting, since) > GRACE
        if at_once or waited:
            self.leave(said["code"], said["words"])

    def _lost(self, rank):
        """A connection was closed. With a report that is an end, without one a death."""
        if rank in self.reported or (launched.rank() == 0 and self.ending.is_set()):
            self.connections.pop(rank).close()
            return
        if launched.rank() <= 1:  # where the first one died, one of the others is enough to say so
            words = f"rank {rank} died; {self.run} stopped there, its last checkpoint is whole; go on with:"
            self.leave(STOPPED, f"{words}\n  {signals.resume_command()}")
        os._exit(STOPPED)

    def leave(self, code, words):
        """End this process at once, with `words`; the first rank ends all."""
        with suppress(OSError, ValueError, RuntimeError):
            sys.stdout.flush()
        with suppress(OSError):
            os.write(2, f"{words}\n".encode())
        if launched.rank() == 0:
            launched.say_how_it_ended(code)
            self._tell(code=code)
        os._exit(code or USER_ERROR)


def _introduced(connection, secret):
    """The rank that a new connection says it is, or None for a stranger."""
    with suppress(ValueError, KeyError, TypeError, OSError), connection.makefile() as lines:
        said = json.loads(lines.readline())
        return said["rank"] if said["secret"] == secret else None


def ask_to_stop():
    """As a signal would, once: a second one would leave at once."""
    if not signals.asked():
        os.kill(os.getpid(), signal.SIGTERM)


def _received(connection):
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


def _line(**content):
    return json.dumps(content).encode() + b"\n"
