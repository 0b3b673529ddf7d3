import os

from lab import durable


def test_where_the_system_has_a_stronger_sync_it_is_asked_for_too(tmp_path, monkeypatch):
    """As on macOS, whose fsync leaves data in the drive's cache; a disk that does not know it is no failure."""
    asked = []

    def full(file, what):
        asked.append((os.fstat(file).st_ino, what))
        raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr(durable, "F_FULLFSYNC", 51)
    monkeypatch.setattr(durable, "fcntl", full, raising=False)
    with open(tmp_path / "file", "wb") as file:
        durable.sync(file.fileno())
    durable.sync_folder(tmp_path)
    assert asked == [((tmp_path / "file").stat().st_ino, 51), (tmp_path.stat().st_ino, 51)]
