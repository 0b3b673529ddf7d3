"""A stand-in for the Hugging Face hub on this machine, with faults to order.

    with Hub() as hub:
        hub.add("lab/model", {"config.json": b"{}", "model.safetensors": b"..."})
        hub.order("cut", "model.safetensors", at=1000)
        subprocess.run(command, env=hub.environment(tmp_path))

What it answers is what huggingface_hub 2.4 asks for: /api/models/<id>[/revision/<revision>], /api/models/<id>/tree/...,
and HEAD and GET of /<id>/resolve/<revision>/<file>, which for large files leads to another host, as the hub's does; the
same below /api/datasets/ and /datasets/.
"""

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import unquote

ERRORS = {  # status and X-Error-Code, as the hub sends them
    "gated": (403, "GatedRepo"),
    "no model": (404, "RepoNotFound"),
    "no revision": (404, "RevisionNotFound"),
    "no file": (404, "EntryNotFound"),
}


@dataclass
class Repository:
    commits: dict  # {commit: {file: content}}
    branches: dict  # {branch: commit}
    card: dict | None = None
    gated: bool = False


@dataclass
class Fault:
    """What is to go wrong: `kind` with the answers that send a file whose name ends in `file` (or "api"), `times` times.

    "cut": the connection ends after `at` bytes. "length": Content-Length is off by `at`. "bytes": the lowest bit of the
    byte `at` of the file is another one. "size": the file has `at` bytes more or fewer. "status": the answer is `at`.
    "slow": a pause of `at` seconds before each 64 kB. "no ranges": all of the file, whatever is asked for.
    "page": a page of HTML; with the "tree" of files JSON that is no list.
    """

    kind: str
    file: str
    at: float = 0
    times: int = 1


@dataclass
class Answer:
    """What was asked for and sent: bytes of content only."""

    method: str
    path: str
    range: str | None
    authorization: str | None
    status: int = 0
    sent: int = 0


@dataclass
class Hub:
    repositories: dict = field(default_factory=dict)
    faults: list = field(default_factory=list)
    answers: list = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def __enter__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.hub = self
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def add(self, name, files, branch="main", **more):
        """Add a commit of `files` {name: bytes} to the repository `name`; returns its hash."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repository = self.repositories.setdefault(name, Repository({}, {}, **more))
        repository.commits[commit] = dict(files)
        repository.branches[branch] = commit
        return commit

    def order(self, kind, file, at=0, times=1):
        """Order a Fault."""
        self.faults.append(Fault(kind, file, at, times))

    def take(self, kinds, file):
        """The next Fault ordered for `file`, used up, or None."""
        with self.lock:
            for fault in self.faults:
                if fault.kind in kinds and fault.times and file.endswith(fault.file):
                    fault.times -= 1
                    return fault
        return None

    def sent(self, file):
        """How many bytes of `file` were sent, by the answers to GET."""
        return sum(answer.sent for answer in self.asked(file))

    def asked(self, file):
        """The Answers to GET that sent something of `file`."""
        return [answer for answer in self.answers if answer.method == "GET" and answer.path.endswith(f"/{file}")]

    def environment(self, home, **more):
        """The environment of a client whose cache is in `home`."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        address = f"http://127.0.0.1:{self.server.server_port}"
        return {**kept, "HF_HOME": str(home), "HF_ENDPOINT": address, "NO_PROXY": "127.0.0.1,localhost", **more}


def is_large(name, content):
    """Whether the hub keeps a file apart from git, under its SHA-256."""
    return len(content) > (1000 if name.endswith(".safetensors") else 100_000)


def etag(name, content):
    """The hub's name for a content: SHA-256, or git's for a blob."""
    if is_large(name, content):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(self.path.partition("?")[0])
        self.answer = Answer(self.command, path, self.headers.get("Range"), self.headers.get("Authorization"))
        self.server.hub.answers.append(self.answer)
        if path.startswith(("/api/models/", "/api/datasets/")):
            self.api(path.split("/", 3)[3])
        elif found := re.fullmatch(r"/(cdn/)?(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(bool(found[1]), *found.groups()[1:])
        else:
            self.error("no model")

    do_HEAD = do_GET

    def api(self, path):
        if fault := self.server.hub.take(("status", "page"), "api"):
            return self.send(int(fault.at) or 200, b"<html>sign in</html>")
        if "/tree/" in path and self.server.hub.take(("page",), "tree"):
            return self.send_json({"error": "sign in"})
        found = re.fullmatch(r"([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        repository, commit, files = self.find(found[1] if found else "", found[3] if found else None)
        if files is None:
            return None
        listed = []
        for name, content in sorted(files.items()):
            lfs = {"sha256": etag(name, content), "size": len(content), "pointerSize": 134}
            large = {"lfs": lfs} if is_large(name, content) else {}
            listed.append(
                (name, len(content), hashlib.sha1(content).hexdigest() if large else etag(name, content), large)
            )
        if found[2] == "tree":
            rows = [
                {"type": "file", "path": name, "size": size, "oid": oid}
                | ({"lfs": {**large["lfs"], "oid": large["lfs"]["sha256"]}} if large else {})
                for name, size, oid, large in listed
            ]
            return self.send_json(rows)
        siblings = [{"rfilename": name, "size": size, "blobId": oid, **large} for name, size, oid, large in listed]
        card = {"cardData": repository.card} if repository.card else {}
        return self.send_json({"id": found[1], "sha": commit, "siblings": siblings, **card})

    def resolve(self, from_cdn, name, revision, file):
        _, commit, files = self.find(name, revision)
        if files is None:
            return None
        if file not in files:
            return self.error("no file", {"X-Repo-Commit": commit})
        content = files[file]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag(file, content)}"', "Accept-Ranges": "bytes"}
        if is_large(file, content) and not from_cdn:
            place = f"http://localhost:{self.server.server_port}/cdn{self.path}"
            linked = {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": len(content), "Location": place}
            return self.send(302, b"", {**headers, **linked})
        if fault := self.server.hub.take(("status",), file):
            return self.send(int(fault.at), b"")
        return self.send_file(file, content, headers)

    def send_file(self, file, content, headers):
        taken = self.server.hub.take if self.command == "GET" else lambda kinds, file: None
        if fault := taken(("bytes",), file):
            content = content[: int(fault.at)] + bytes([content[int(fault.at)] ^ 1]) + content[int(fault.at) + 1 :]
        if fault := taken(("size",), file):
            content = content[: int(fault.at)] if fault.at < 0 else content + bytes(int(fault.at))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and not taken(("no ranges",), file):
            first, last = int(wanted[1]), min(int(wanted[2] or len(content)) + 1, len(content))
            if first >= len(content):
                return self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            place = {"Content-Range": f"bytes {first}-{last - 1}/{len(content)}"}
            return self.send(206, content[first:last], {**headers, **place}, taken, file)
        return self.send(200, content, headers, taken, file)

    def find(self, name, revision):
        """(repository, commit, files), or (None, None, None) after an error was sent."""
        repository = self.server.hub.repositories.get(name)
        commit = repository and repository.branches.get(revision or "main", revision)
        if repository is None:
            self.error("no model")
        elif repository.gated and "/resolve/" in self.path:  # what there is anyone may know
            self.error("gated")
        elif commit not in repository.commits:
            self.error("no revision")
        else:
            return repository, commit, repository.commits[commit]
        return None, None, None

    def error(self, what, headers=None):
        status, code = ERRORS[what]
        self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": what, **(headers or {})})

    def send_json(self, content):
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send(self, status, body, headers=None, taken=lambda kinds, file: None, file=""):
        length, cut, slow = (taken((kind,), file) for kind in ("length", "cut", "slow"))
        self.answer.status = status
        self.send_response(status)
        for name, value in {
            "Content-Length": len(body) + int(length.at if length else 0),
            **(headers or {}),
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        body = body[: int(cut.at)] if cut else body
        self.close_connection = bool(cut or length)
        for begin in range(0, len(body), 65536):
            time.sleep(slow.at if slow else 0)
            part = body[begin : begin + 65536]
            try:
                self.wfile.write(part)
            except OSError:  # the client is gone
                self.close_connection = True
                return
            self.answer.sent += len(part)

    def log_message(self, *_):
        pass
