"""Waiting until what was written is on the disk itself, whatever the system keeps in its caches."""

import os
from contextlib import suppress

try:
    from fcntl import F_FULLFSYNC, fcntl  # macOS: fsync alone leaves the data in the drive's cache
except ImportError:
    F_FULLFSYNC = None


def sync(file):
    """Wait until an open file or folder, by its number, is on the disk."""
    os.fsync(file)
    if F_FULLFSYNC is not None:
        with suppress(OSError):  # a network's disk does not know it, and fsync is the most it has
            fcntl(file, F_FULLFSYNC)


def sync_folder(path):
    """Wait until the names in a folder (what was made, renamed, removed there) are on the disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        sync(folder)
    finally:
        os.close(folder)
