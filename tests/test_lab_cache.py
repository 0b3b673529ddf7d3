"""Links: which ones a checkpoint may hold, and what is deleted with one."""

import os
import struct

import pytest

from lab import cache
from lab.checkpoints import read_checkpoint
from lab.cli import LabError

COMMITS = ("a" * 40, "b" * 40)
BLOB, XET = "c" * 64, "de" + "f" * 62
HEADER = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
WHOLE = struct.pack("<Q", len(HEADER)) + HEADER + bytes(4)


@pytest.fixture
def snapshot(tmp_path):
    """A snapshot folder of the hub's cache, empty."""
    folder = tmp_path / "hub" / "models--lab--model" / "snapshots" / COMMITS[0]
    folder.mkdir(parents=True)
    (folder.parents[1] / "blobs").mkdir()
    return folder


def link(folder, target="../../blobs/" + BLOB, name="model.safetensors"):
    """A link as huggingface_hub makes it, to a whole blob."""
    folder.mkdir(exist_ok=True)
    (folder / name).symlink_to(target)
    (folder.parents[1] / "blobs" / BLOB).write_bytes(WHOLE)
    return folder / name


def share(snapshot, *references):
    """The shared store of a cache, with the blob moved there; returns its file."""
    blob = snapshot.parents[1] / "blobs" / BLOB
    store = snapshot.parents[2] / "blobs"
    kept = store / XET[:2] / XET
    kept.parent.mkdir(parents=True)
    (store / cache.STORE_MARKER).write_text("1\n", encoding="utf-8")
    os.replace(blob, kept)
    blob.symlink_to(f"../../blobs/{XET[:2]}/{XET}")
    lines = (f"models--lab--model/blobs/{BLOB}", *references)
    kept.with_name(f"{XET}.refs").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return kept


def error(folder):
    with pytest.raises(LabError) as caught:
        read_checkpoint(folder)
    return str(caught.value)


def test_the_hub_s_cache_is_read(snapshot):
    link(snapshot)
    assert list(read_checkpoint(snapshot)) == ["a"]
    share(snapshot)
    assert list(read_checkpoint(snapshot)) == ["a"]


def test_a_folder_may_itself_be_a_link(snapshot, tmp_path):
    link(snapshot)
    (tmp_path / "short").symlink_to(snapshot)
    assert list(read_checkpoint(tmp_path / "short")) == ["a"]


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize("target", ["{}/secret", "../secret", "../../../../../secret", "../../blobs/../secret"])
def test_a_link_that_leads_out(snapshot, tmp_path, name, target):
    (tmp_path / "secret").write_bytes(WHOLE)
    link(snapshot, target.format(tmp_path), name)
    assert f"{snapshot / name}: a link that leads out of its folder, to " in error(snapshot)


def test_blobs_of_another_folder_are_outside(tmp_path):
    """Only a snapshot's own blobs may be linked to: elsewhere ../../blobs is as foreign as any folder."""
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / BLOB).write_bytes(WHOLE)
    (folder / "model.safetensors").symlink_to("../../blobs/" + BLOB)
    assert "a link that leads out of its folder" in error(folder)


@pytest.mark.parametrize("inside", ["blobs is a link", "blob is a link", "no marker", "not a hash"])
def test_a_cache_made_to_lead_out(snapshot, tmp_path, inside):
    path, blobs = link(snapshot), snapshot.parents[1] / "blobs"
    if inside == "blobs is a link":
        os.replace(blobs, tmp_path / "elsewhere")
        blobs.symlink_to(tmp_path / "elsewhere")
    elif inside == "blob is a link":
        os.replace(blobs / BLOB, tmp_path / "secret")
        (blobs / BLOB).symlink_to(tmp_path / "secret")
    else:
        kept = share(snapshot)
        if inside == "no marker":
            (kept.parents[1] / cache.STORE_MARKER).unlink()
        else:
            os.replace(kept, kept.with_name("passwd"))
            (blobs / BLOB).unlink()
            (blobs / BLOB).symlink_to(f"../../blobs/{XET[:2]}/passwd")
    assert f"{path}: a link that leads out of its folder" in error(snapshot)


def test_removed_with_what_it_leads_to(snapshot):
    path = link(snapshot)
    cache.remove(path)
    assert not os.path.lexists(path) and not list((snapshot.parents[1] / "blobs").iterdir())


def test_a_blob_of_another_revision_stays(snapshot):
    path, other = link(snapshot), link(snapshot.with_name(COMMITS[1]))
    cache.remove(path)
    assert not os.path.lexists(path) and other.read_bytes() == WHOLE
    cache.remove(other)
    assert not list((snapshot.parents[1] / "blobs").iterdir())


def test_what_is_wrong_is_wrong_for_every_revision(snapshot):
    path, other = link(snapshot), link(snapshot.with_name(COMMITS[1]))
    kept = share(snapshot, "models--lab--other/blobs/x")
    cache.remove(path, wrong=True)
    assert not other.exists() and not kept.exists() and not list((snapshot.parents[1] / "blobs").iterdir())


@pytest.mark.parametrize("shared", [False, True])
def test_the_shared_store_keeps_what_another_repository_needs(snapshot, shared):
    path, other = link(snapshot), snapshot.parents[2] / "models--lab--other" / "blobs" / BLOB
    kept = share(snapshot, f"models--lab--other/blobs/{BLOB}")
    if shared:
        other.parent.mkdir(parents=True)
        other.symlink_to(f"../../blobs/{XET[:2]}/{XET}")
    cache.remove(path)
    assert not list((snapshot.parents[1] / "blobs").iterdir()) and kept.exists() == shared


def test_a_plain_file_and_a_foreign_link(tmp_path):
    (tmp_path / "secret").write_bytes(WHOLE)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "one").write_bytes(WHOLE)
    (folder / "two").symlink_to(tmp_path / "secret")
    for name in ("one", "two", "three"):
        cache.remove(folder / name)
    assert not list(folder.iterdir()) and (tmp_path / "secret").exists()


def test_what_cannot_be_deleted_is_named(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(LabError, match="one: cannot be deleted"):
        cache.remove(tmp_path / "one")
