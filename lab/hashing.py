"""The SHA-256 of large files on threads of their own, which end with the command: Ctrl-C waits for no file's end."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

BLOCK = 1 << 18  # bytes, as hashlib.file_digest takes


class Hashing(ThreadPoolExecutor):
    """Threads for `sha256`. At the end of its `with`, what is not hashed yet is left as it is."""

    def __init__(self, threads):
        super().__init__(threads)
        self.ended = threading.Event()

    def sha256(self, path):
        """The hexadecimal SHA-256 of a file; None where nobody waits for it any more."""
        digest, block = hashlib.sha256(), memoryview(bytearray(BLOCK))
        with open(path, "rb", buffering=0) as file:
            while size := file.readinto(block):
                if self.ended.is_set():
                    return None
                digest.update(block[:size])
        return digest.hexdigest()

    def __exit__(self, *_):
        self.ended.set()
        self.shutdown(cancel_futures=True)
