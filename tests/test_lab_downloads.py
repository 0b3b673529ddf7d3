"""Checkpoints from a stand-in for the hub (tests/hub_server.py), over HTTP, by a client in a process of its own."""

import errno
import hashlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import hub_server
from tests.hub_server import Hub

ROOT = Path(__file__).resolve().parent.parent
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
# A process of its own, as huggingface_hub reads its settings from the environment when it is imported.
# a test run started in the background of a shell hands down that SIGINT is ignored
HEAR_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
CLIENT = """
import json, shutil, sys
from collections import namedtuple
from lab import cli, hub

def main(argv):
    order = json.loads(argv[0])
    if order["id"][:1] not in "/.":
        from lab import transfers
        transfers.WAITS, transfers.TIMEOUT = (0.05,) * 3, 2
    if "free" in order:
        shutil.disk_usage = lambda path: namedtuple("Usage", "free")(order["free"])
    source = hub.find_source(order["id"], order.get("revision"), order.get("weights", "all"))
    shapes = {name: [t.dtype, t.shape, t.shard.name, t.offset] for name, t in source.tensors().items()}
    for shard in order.get("fetch", []):
        assert source.fetch(shard) == source.folder / shard
    for shard in order.get("release", []):
        source.release(shard)
    if "refuse" in order:
        source.refuse(order["refuse"], "0" * 64)
    facts = (str(source.folder), source.revision, source.licence, source.digests, shapes)
    print(json.dumps(dict(zip(("folder", "revision", "licence", "digests", "tensors"), facts))))

sys.exit(cli.finish(main, sys.argv[1:]))
"""


def shard(name, numbers):
    """A safetensors file of one tensor, with content that is nowhere the same."""
    end = 4 * numbers
    header = {
        "__metadata__": {"format": "pt"},
        name: {"dtype": "U32", "shape": [numbers], "data_offsets": [0, end]},
    }
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + b"".join(struct.pack("<I", i) for i in range(numbers))


def model(**changes):
    """The files of a repository: two shards of 1.2 and 0.6 MB, what belongs to them, and what nobody needs."""
    index = {"metadata": {"total_size": 1_800_000}, "weight_map": {"a": ONE, "b": TWO}}
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}" + b" " * 200_000,
        ONE: shard("a", 300_000),
        TWO: shard("b", 150_000),
    }
    files |= {INDEX: json.dumps(index).encode(), "chat_template.jinja": b"{{ messages }}", "LICENSE": b"Terms\n"}
    unwanted = {
        "modeling.py": b"print()",
        "pytorch_model.bin": b"pickle",
        "onnx/model.onnx": b"x",
        "a/config.json": b"[]",
    }
    return {**files, **unwanted, **changes}


WANTED = {"config.json", "tokenizer.json", ONE, TWO, INDEX, "chat_template.jinja", "LICENSE"}


@pytest.fixture
def hub():
    with Hub() as running:
        yield running


@pytest.fixture
def client(hub, tmp_path):
    """A function that runs the client: (what it found or its error, what it printed to stderr besides)."""

    def run(path="lab/model", environment=None, wait=True, **order):
        settings = hub.environment(tmp_path / "home", **(environment or {}))
        command = [sys.executable, "-c", f"{HEAR_CTRL_C}\n{CLIENT}", json.dumps({"id": path, **order})]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env=settings, cwd=ROOT, **pipes)
        return answer(process) if wait else process

    return run


def answer(process):
    out, error = process.communicate(timeout=60)
    if process.returncode == 0:
        return json.loads(out), error
    assert process.returncode == 1 and not out, error
    *again, line = error.splitlines()
    assert line.startswith("error: ") and line.isprintable(), error
    assert all(re.fullmatch(r"http\S+ (answers \d+|does not answer \(.*\)); asking again", said) for said in again)
    return f"{line}\n", ""


def found(folder, name):
    return (Path(folder) / name).read_bytes()


def leftovers(tmp_path):
    """Files of the cache that are not finished."""
    return [
        path for path in (tmp_path / "home").rglob("*") if path.name.endswith((".incomplete", ".tmp", ".partial"))
    ]


def unfinished(content, tmp_path):
    """How many bytes of a large file lie in the cache and wait for the rest."""
    name = f"{hashlib.sha256(content).hexdigest()}.incomplete"
    return sum(path.stat().st_size for path in (tmp_path / "home").rglob(name))


def wait_for(contents, size, tmp_path):
    """Wait until `size` bytes of each of the large `contents` came."""
    deadline = time.monotonic() + 60
    while not all(unfinished(content, tmp_path) >= size for content in contents):
        assert time.monotonic() < deadline, "no byte came"
        time.sleep(0.02)


def test_the_needed_files_of_one_commit(hub, client):
    files = model()
    commit = hub.add("lab/model", files, card={"license": "other", "license_name": "hyperclovax"})
    source, said = client()
    folder = Path(source["folder"])
    assert {path.name for path in folder.iterdir()} == WANTED and not said
    assert all(found(folder, name) == files[name] for name in WANTED)
    assert source["revision"] == folder.name == commit and source["licence"] == "hyperclovax"
    assert source["digests"] == {name: hashlib.sha256(files[name]).hexdigest() for name in (ONE, TWO)}
    assert hub.sent(ONE) == len(files[ONE]) and hub.sent(TWO) == len(files[TWO])
    assert not [answer for answer in hub.answers if "modeling" in answer.path or "pytorch" in answer.path]


def test_the_second_time_nothing_is_sent_again(hub, client):
    hub.add("lab/model", model())
    first, _ = client()
    hub.answers.clear()
    assert client()[0] == first
    assert {answer.path for answer in hub.answers if "agent" not in answer.path} == {"/api/models/lab/model"}


def test_huggingface_hub_finds_what_was_fetched_and_the_other_way_round(hub, client, tmp_path):
    hub.add("lab/model", model())
    code = (
        "import huggingface_hub, sys; print(huggingface_hub.snapshot_download('lab/model', **eval(sys.argv[1])))"
    )

    def theirs(home, options):
        environment = hub.environment(home)
        return subprocess.check_output(
            [sys.executable, "-c", code, str(options)], env=environment, text=True
        ).strip()

    folder = client()[0]["folder"]
    patterns = {"allow_patterns": ["*.safetensors", "config.json"]}
    assert theirs(tmp_path / "home", {"local_files_only": True, **patterns}) == folder
    theirs(tmp_path / "other", {})
    hub.answers.clear()
    assert client(environment={"HF_HOME": str(tmp_path / "other")})[0]["folder"] == folder.replace("home", "other")
    assert hub.sent(ONE) == hub.sent(TWO) == 0


@pytest.mark.parametrize("weights", ["headers", "later"])
def test_headers_alone(hub, client, weights):
    hub.add("lab/model", model())
    source, _ = client(weights=weights)
    assert {path.name for path in Path(source["folder"]).iterdir()} == WANTED - {ONE, TWO}
    assert hub.sent(ONE) == hub.sent(TWO) == 65536
    assert client()[0] == source


def test_a_header_longer_than_the_first_request(hub, client):
    names = {
        f"{'long' * 20}.{number}": {"dtype": "U8", "shape": [1], "data_offsets": [number, number + 1]}
        for number in range(1000)
    }
    raw = json.dumps(names).encode()
    content = struct.pack("<Q", len(raw)) + raw + bytes(1000)
    hub.add("lab/model", {"config.json": b"{}", "model.safetensors": content})
    assert len(raw) > 100_000 and len(client(weights="headers")[0]["tensors"]) == 1000
    assert hub.sent("model.safetensors") == 8 + len(raw)
    hub.order("no ranges", "model.safetensors", times=2)
    assert len(client(weights="headers")[0]["tensors"]) == 1000


def test_shards_fetched_and_released_one_by_one(hub, client):
    files = model()
    hub.add("lab/model", files)
    source, _ = client(weights="later", fetch=[TWO])
    folder = Path(source["folder"])
    assert found(folder, TWO) == files[TWO] and not (folder / ONE).exists()
    client(weights="later", fetch=[ONE, TWO], release=[TWO])
    assert found(folder, ONE) == files[ONE] and not os.path.lexists(folder / TWO)
    blobs = {path.name for path in (folder.parents[1] / "blobs").iterdir()}
    assert source["digests"][ONE] in blobs and source["digests"][TWO] not in blobs


def test_a_shard_kept_in_git_itself(hub, client):
    """What is small has no SHA-256 in the hub's listing, but git's own hash; it comes at once."""
    small = shard("a", 3)
    hub.add("lab/model", {"config.json": b"{}", "model.safetensors": small})
    hub.order("bytes", "model.safetensors", at=len(small) - 1)
    assert "/model.safetensors: wrong bytes came (" in client()[0]
    source, _ = client(weights="headers")
    assert source["digests"] == {} and found(source["folder"], "model.safetensors") == small


def test_a_token_goes_to_the_hub_only(hub, client):
    hub.add("lab/model", model())
    client(environment={"HF_TOKEN": "hf_secret"})
    sent = {True: set(), False: set()}
    for asked in hub.answers:
        if "lab/model" in asked.path:
            sent[asked.path.startswith("/cdn/")].add(asked.authorization)
    assert sent == {False: {"Bearer hf_secret"}, True: {None}}


# --- broken connections


def test_a_cut_connection_is_gone_on_with(hub, client, tmp_path):
    files = model()
    hub.add("lab/model", files)
    hub.order("cut", ONE, at=100_000)
    hub.order("cut", ONE, at=400_000)
    source, _ = client()
    assert found(source["folder"], ONE) == files[ONE] and not leftovers(tmp_path)
    ranges = [answer.range for answer in hub.asked(ONE) if answer.status == 206]
    assert ranges == ["bytes=0-", "bytes=100000-", "bytes=500000-"]
    assert hub.sent(ONE) == len(files[ONE])


def test_a_connection_that_is_cut_again_and_again_still_ends(hub, client):
    files = model()
    hub.add("lab/model", files)
    hub.order("cut", ONE, at=50_000, times=1000)
    assert found(client()[0]["folder"], ONE) == files[ONE]
    assert hub.sent(ONE) == len(files[ONE])


def test_a_killed_download_is_gone_on_with_in_the_next_run(hub, client, tmp_path):
    files = model()
    hub.add("lab/model", files)
    hub.order("slow", ONE, at=0.1, times=1000)
    process = client(wait=False)
    wait_for([files[ONE]], 150_000, tmp_path)
    process.kill()
    process.communicate()
    held = unfinished(files[ONE], tmp_path)
    hub.faults.clear()
    hub.answers.clear()
    source, _ = client()
    assert found(source["folder"], ONE) == files[ONE] and not leftovers(tmp_path)
    assert [answer.range for answer in hub.asked(ONE) if answer.status == 206] == [f"bytes={held}-"]
    assert hub.sent(ONE) == len(files[ONE]) - held


def test_ctrl_c_stops_all_downloads_and_keeps_what_came(hub, client, tmp_path):
    files = model()
    hub.add("lab/model", files)
    for name in (ONE, TWO):
        hub.order("slow", name, at=0.2, times=1000)
    process = client(wait=False)
    wait_for([files[ONE], files[TWO]], 1, tmp_path)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 75 and error.count("\n") == 1
    assert unfinished(files[ONE], tmp_path) and unfinished(files[TWO], tmp_path)


def test_a_connection_that_gives_nothing_any_more(hub, client, tmp_path):
    files = model()
    hub.add("lab/model", files)
    hub.order("cut", ONE, at=300_000)
    hub.order("cut", ONE, at=0, times=100)
    error, _ = client()
    assert "error: lab/model: the connection to http://127.0.0.1" in error
    assert error.endswith(
        "check the network and HF_ENDPOINT, then run the same command again, what has come is kept\n"
    )
    assert hub.faults[1].times == 100 - 4  # attempts, then it gives up
    assert unfinished(files[ONE], tmp_path) == 300_000
    hub.faults.clear()
    assert found(client()[0]["folder"], ONE) == files[ONE] and hub.sent(ONE) == len(files[ONE])


def test_a_hub_that_falls_silent(hub, client):
    files = model()
    hub.add("lab/model", files)
    hub.order("slow", TWO, at=3)  # the client waits 2 seconds
    assert found(client()[0]["folder"], TWO) == files[TWO]


def test_a_hub_without_ranges(hub, client):
    files = model()
    hub.add("lab/model", files)
    hub.order("cut", ONE, at=100_000)
    hub.order("no ranges", ONE, times=100)
    assert found(client()[0]["folder"], ONE) == files[ONE]
    assert hub.sent(ONE) == len(files[ONE]) + 100_000


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_stumbles_once(hub, client, status):
    files = model()
    hub.add("lab/model", files)
    for name in ("api", ONE):
        hub.order("status", name, at=status)
    source, _ = client()
    assert found(source["folder"], ONE) == files[ONE] and not any(fault.times for fault in hub.faults)
    hub.order("status", TWO, at=status)
    assert client(weights="headers")[0] == source


def test_two_clients_at_once_download_once(hub, client):
    files = model()
    hub.add("lab/model", files)
    hub.order("slow", ONE, at=0.15, times=1000)
    both = [client(wait=False) for _ in range(2)]
    ended = [answer(process) for process in both]
    assert [found(source["folder"], ONE) for source, _ in ended] == [files[ONE]] * 2
    assert sorted(said.count("another process downloads it; waiting for that") for _, said in ended) == [0, 1]
    assert hub.sent(ONE) == len(files[ONE])


# --- wrong content


@pytest.mark.parametrize("off", [-100_000, 100_000])
def test_a_wrong_content_length_costs_another_request_only(hub, client, off):
    files = model()
    hub.add("lab/model", files)
    hub.order("length", ONE, at=off)
    assert found(client()[0]["folder"], ONE) == files[ONE]


@pytest.mark.parametrize("off", [-1, 1, 1_000_000])
def test_a_file_of_another_size_than_promised(hub, client, tmp_path, off):
    files = model()
    hub.add("lab/model", files)
    hub.order("size", TWO, at=off)
    error, _ = client()
    assert f"/{TWO}: {len(files[TWO]) + off} bytes there, where {len(files[TWO])} were promised" in error
    assert hashlib.sha256(files[TWO]).hexdigest() not in {
        path.name.partition(".")[0] for path in leftovers(tmp_path)
    }
    hub.order("size", TWO, at=off)
    assert TWO in client(weights="headers")[0]
    assert found(client()[0]["folder"], TWO) == files[TWO]


def test_wrong_bytes_are_removed_and_fetched_again(hub, client, tmp_path):
    files = model()
    commit = hub.add("lab/model", files)
    hub.order("bytes", TWO, at=500_000)
    error, _ = client()
    digest = hashlib.sha256(files[TWO]).hexdigest()
    assert f"snapshots/{commit}/{TWO}: wrong bytes (SHA-256 " in error
    assert f"the hub promises {digest[:12]}...), so it was removed; run the same command again" in error
    assert not [path for path in tmp_path.rglob("*") if path.name in (TWO, digest, f"{digest}.incomplete")]
    assert found(client()[0]["folder"], TWO) == files[TWO]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_wrong_bytes_in_a_small_file(hub, client, tmp_path, name):
    files = model()
    hub.add("lab/model", files)
    hub.order("bytes", name, at=1)
    error, _ = client()
    assert f"/{name}: wrong bytes came (" in error and "so it was removed; run the same command again" in error
    assert not list(tmp_path.rglob(name))
    assert found(client()[0]["folder"], name) == files[name]


def test_a_cached_shard_cut_short_is_fetched_again(hub, client):
    files = model()
    hub.add("lab/model", files)
    folder = client()[0]["folder"]
    os.truncate(Path(folder) / ONE, 1000)
    _, said = client()
    assert (
        f"{folder}/{ONE}: 1000 bytes, where the hub promises {len(files[ONE])}: removed from the cache\n" == said
    )
    assert found(folder, ONE) == files[ONE]


def test_a_cached_shard_that_the_converter_refuses_is_fetched_again(hub, client):
    """Cached shards are not hashed at each start; who reads them all compares them with `digests`."""
    files = model()
    hub.add("lab/model", files)
    folder = client()[0]["folder"]
    hub.add("lab/model", model(LICENSE=b"Other terms\n"), "v1")  # it links to the same blob
    client(revision="v1")
    error, _ = client(refuse=ONE)
    assert f"{folder}/{ONE}: wrong bytes (SHA-256 000000000000..., the hub promises" in error
    assert not os.path.lexists(f"{folder}/{ONE}")
    hub.answers.clear()
    assert found(client()[0]["folder"], ONE) == files[ONE] and hub.sent(ONE) == len(files[ONE])


def test_a_header_sent_alone_must_be_that_of_the_file(hub, client):
    files = model()
    hub.add("lab/model", files)
    hub.order("bytes", ONE, at=files[ONE].index(b"pt"))
    error, _ = client(weights="later", fetch=[ONE])
    assert f"/{ONE}: not the header that the hub had sent alone; run the same command again" in error
    assert client(weights="later", fetch=[ONE])[0]["tensors"]


def test_a_broken_header_on_the_hub(hub, client):
    for branch, content in {"main": bytes(2000), "long": struct.pack("<Q", 1 << 40) + bytes(2000)}.items():
        hub.add("lab/model", {"config.json": b"{}", "model.safetensors": content}, branch)
    assert "model.safetensors: broken safetensors header (" in client(weights="headers")[0]
    assert "its header would take 1099511627776" in client(weights="headers", revision="long")[0]


def test_a_hub_that_promises_no_hash_but_a_path(hub, client, tmp_path, monkeypatch):
    real = hub_server.etag
    monkeypatch.setattr(
        hub_server, "etag", lambda *file: real(*file) if "model" not in file[0] else "../../../../evil"
    )
    hub.add("lab/model", {"config.json": b"{}", "model.safetensors": shard("a", 1000)})
    assert "what answers there is not the hub" in client()[0]
    assert not list(tmp_path.rglob("evil*"))


# --- revisions, the cache without the hub


def test_revisions(hub, client):
    old = hub.add("lab/model", model())
    hub.add("lab/model", model(), "v1")
    assert client()[0]["revision"] == old
    new = hub.add("lab/model", model(**{"config.json": b"[]", TWO: shard("b", 150_000)[:-1] + b"\1"}))
    for revision, commit in {None: new, "main": new, "v1": old, old: old}.items():
        source, _ = client(revision=revision)
        assert source["revision"] == commit and found(source["folder"], "config.json") == (
            b"{}" if commit == old else b"[]"
        )
    assert hub.sent(ONE) == len(model()[ONE])  # the same in both commits


@pytest.mark.parametrize("without", ["HF_HUB_OFFLINE", "the hub"])
def test_all_in_the_cache_needs_no_hub(hub, client, without):
    commit = hub.add("lab/model", model())
    source, _ = client()
    offline = {"HF_HUB_OFFLINE": "1"} if without == "HF_HUB_OFFLINE" else {"HF_ENDPOINT": "http://127.0.0.1:9"}
    hub.answers.clear()
    for order in (
        {},
        {"weights": "headers"},
        {"weights": "later", "fetch": [ONE]},
        {"revision": "main"},
        {"revision": commit},
    ):
        again, said = client(environment=offline, **order)
        assert again == {**source, "licence": "Terms"}
        refused = f"[Errno {errno.ECONNREFUSED}] Connection refused"
        waited = f"http://127.0.0.1:9 does not answer ({refused}); asking again\n"
        used = f"lab/model: the hub cannot be reached; the cache's {commit} is used\n"
        assert set(said.splitlines(True)) == (set() if "HF_HUB_OFFLINE" in offline else {waited, used})
    assert not hub.answers
    error, _ = client(environment=offline, revision="v2")
    assert "the hub cannot be reached" in error or "the connection to" in error


def test_a_part_in_the_cache_needs_the_hub(hub, client):
    hub.add("lab/model", model())
    client(weights="later", fetch=[ONE])
    error, _ = client(environment={"HF_HUB_OFFLINE": "1"})
    assert error == (
        "error: lab/model: 1 of 2 shards are not in the cache, and the hub cannot be reached; connect (and unset "
        "HF_HUB_OFFLINE), then run the same command again, what has come is kept\n"
    )


# --- what cannot be had


@pytest.mark.parametrize(
    ("path", "order", "environment", "expected"),
    [
        (
            "lab/gated",
            {},
            {},
            "gated, and there is no token; accept its licence at https://huggingface.co/lab/gated, then run `hf auth",
        ),
        (
            "lab/unknown",
            {},
            {},
            "no such folder, and no such model on the hub; check the name, or run `hf auth login` if it is private",
        ),
        (
            "lab/model",
            {"revision": "v9"},
            {},
            "no revision v9 of it on the hub; https://huggingface.co/lab/model/commits/main lists them",
        ),
        ("lab/model", {"revision": "../v9"}, {}, "--revision ../v9 is no branch, tag or commit; check it"),
        ("lab/model", {"revision": "a\nb"}, {}, r"--revision 'a\nb' is no branch, tag or commit; check it"),
        (
            "lab/model",
            {},
            {"HF_HUB_OFFLINE": "1"},
            "no such folder, not in the cache, and the hub cannot be reached; connect (and unset HF_HUB_OFFLINE)",
        ),
        (
            "lab/model",
            {},
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "the connection to http://127.0.0.1:9 failed ([Errno 111] Connection refused); check the network and HF_ENDPOINT, then run",
        ),
        (
            "lab/model",
            {},
            {"HF_HOME": "/dev/null/home"},
            "/dev/null/home/token: cannot be read or written (Not a directory); check HF_HOME",
        ),
        ("lab/model", {"free": 1_500_000}, {}, "0.0 GB to download, 0.0 GB of disk free at "),
        ("lab/part", {}, {}, f"lacks what its index names: {TWO}; choose another --revision"),
        ("lab/a--b", {}, {}, "no name of a model on the hub ("),
    ],
)
def test_errors_are_one_line_with_a_remedy(hub, client, path, order, environment, expected):
    hub.add("lab/model", model())
    hub.add("lab/gated", model(), gated=True)
    hub.add("lab/part", {name: content for name, content in model().items() if name != TWO})
    error, _ = client(path, environment=environment, **order)
    assert error.startswith(f"error: {path}: ") and expected in error


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("page", 200, "what answers there is not the hub; check HF_ENDPOINT and the proxy"),
        ("status", 401, "the hub does not know this token (HF_TOKEN, or `hf auth login`'s); run `hf auth login`"),
        (
            "status",
            403,
            "the hub does not let this token in (403); look at https://huggingface.co/lab/model, then",
        ),
        (
            "status",
            429,
            "the hub gets too many requests (429); wait some minutes, then run the same command again",
        ),
        ("status", 500, "the hub answers 500; wait some minutes, then run the same command again"),
    ],
)
def test_answers_that_are_none(hub, client, kind, status, expected):
    hub.add("lab/model", model())
    hub.order(kind, "api", at=status, times=100)
    assert expected in client()[0]


def test_a_listing_that_is_none(hub, client):
    hub.add("lab/model", model())
    hub.order("page", "tree", times=9)
    assert "what answers there is not the hub; check HF_ENDPOINT" in client()[0]


def test_a_disk_that_fills_up(hub, client, tmp_path):
    files = model()
    hub.add("lab/model", files)
    folder = Path(client(weights="headers")[0]["folder"])
    partial = folder.parents[1] / "blobs" / f"{hashlib.sha256(files[ONE]).hexdigest()}.incomplete"
    partial.symlink_to("/dev/full")
    error, _ = client()
    assert (
        "cannot be read or written (No space left on device); free the disk, or set HF_HOME to a folder on another one"
        in error
    )


@pytest.mark.parametrize(
    ("revision", "expected"), [("main", "--revision main: {} is a local folder, which has none; leave it out")]
)
def test_a_local_folder_has_no_revision(client, tmp_path, revision, expected):
    assert expected.format(tmp_path) in client(str(tmp_path), revision=revision)[0]
