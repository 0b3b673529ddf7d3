"""Bytes from the Hugging Face hub: gone on with where they broke off, asked for again while the hub stumbles.

huggingface_hub gives addresses, tokens, the session and its errors; its own download (2.4.0) begins a file anew in
each run.
"""

import os
import re
import sys
import time
from contextlib import contextmanager, suppress
from threading import Event

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # HTTPError: that of its HTTP library
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from lab import explanations
from lab.cli import LabError
from lab.headers import LIMIT, refuse_length

TIMEOUT = 20  # seconds without a byte
SAID, QUIET = {}, 0.5  # {words: when they were said}, and for how many seconds they are not said again
WAITS = (1, 2, 4, 8)  # seconds before the next attempt, for as long as no byte comes
LONGEST_WAIT = 300  # seconds; the hub counts requests in windows of five minutes
PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be gone at the next attempt
FIRST = 1 << 16  # bytes; they hold the headers of most shards (75 tensors, as in the 32B, take some 10 kB)


def append(source, shard, path, told=lambda nbytes: None, stop=None):
    """Make `path` the bytes of `shard` on the hub, going on after those that it holds already.

    `told` is called with the number of new bytes; an Event `stop` ends it early. Raises LabError, and removes `path`,
    where the hub sends another number of bytes than it promised.
    """
    url, size, stop = (
        hf_hub_url(source.repository, shard, revision=source.revision),
        source.sizes[shard],
        stop or Event(),
    )
    with open(path, "ab") as file:
        if (begin := file.tell()) > size:
            file.truncate(begin := 0)
        if begin:
            told(begin)
        waits, furthest = iter(WAITS), begin
        while begin < size and not stop.is_set():
            try:
                trouble = _attempt(lambda begin=begin: _stream(url, file, begin, size, told, stop))
            except WrongSize:
                path.unlink()
                raise
            begin = os.fstat(file.fileno()).st_size
            if begin > furthest:
                waits, furthest = iter(WAITS), begin
            elif not stop.is_set():
                _wait(waits, trouble or ConnectionError(f"no bytes come from {url}"), stop)
        os.fsync(file.fileno())


class WrongSize(LabError):
    """The hub sends another number of bytes than it promised."""

    def __init__(self, url, what):
        super().__init__(f"{url}: {what}; the hub is at fault, try again later")


def _stream(url, file, begin, size, told, stop):
    """Append to `file` what the hub sends from the byte `begin` on. Raises WrongSize."""
    with _get(url, f"bytes={begin}-") as response:
        first, total = _place(response)
        if total not in (None, size):
            raise WrongSize(url, f"{total} bytes there, where {size} were promised")
        if first not in (0, begin):
            raise WrongSize(url, f"byte {first} comes first, where {begin} was asked for")
        if first != begin:  # it does not know ranges, and begins anew
            file.truncate(first)
            told(first - begin)
        for (
            chunk
        ) in response.iter_raw():  # as they come: what waits for a chunk to fill is lost when it breaks off
            first += len(chunk)
            if first > size:
                raise WrongSize(url, f"more than the promised {size} bytes come")
            file.write(chunk)
            file.flush()
            told(len(chunk))
            if stop.is_set():
                return


def read_header(source, shard):
    """(header, size of the file in bytes) of a safetensors file on the hub, read by range. Raises LabError."""
    url = hf_hub_url(source.repository, shard, revision=source.revision)
    raw, size = patiently(lambda: _range(url, 0, FIRST))
    if size is None or size != source.sizes.get(shard, size):
        raise WrongSize(url, f"{size} bytes there, where {source.sizes.get(shard)} were promised")
    refuse_length(length := int.from_bytes(raw[:8], "little"), size, url)
    if len(raw) < 8 + length:
        raw += patiently(lambda: _range(url, len(raw), 8 + length)[0])
    if len(raw) < 8 + length:
        raise WrongSize(url, f"{len(raw)} bytes come, where {8 + length} were asked for")
    return raw[8 : 8 + length], size


def _range(url, first, last):
    """(bytes `first` to `last`, not included; size of the whole file or None)."""
    held = bytearray()
    with _get(url, f"bytes={first}-{last - 1}") as response:
        begin, size = _place(response)
        for chunk in response.iter_raw():
            held += chunk
            if len(held) >= min(last - begin, LIMIT + FIRST):  # a hub that does not know ranges sends all of it
                break
    return bytes(held[first - begin : last - begin]), size


@contextmanager
def _get(url, wanted):
    # Bytes as they are: a length that counts compressed bytes says nothing.
    headers = {**build_hf_headers(), "Range": wanted, "Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as response:
        if response.status_code == 416:
            raise WrongSize(url, f"no {wanted} in it")
        hf_raise_for_status(response)
        yield response


def _place(response):
    """(place of the response's first byte in the file, size of the file or None)."""
    if found := re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "")):
        return int(found[1]), int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if response.status_code == 200 and length.isdigit() else None


def patiently(ask, waits=WAITS):
    """What `ask()` returns, asked again after `waits` seconds while the hub stumbles. Raises the last trouble."""
    answer, waits = [], iter(waits)
    while trouble := _attempt(lambda: answer.append(ask())):
        _wait(waits, trouble, Event())
    return answer[0]


def _say(words):
    """Print a line once in a while: several files may be waited for at a time."""
    now = time.monotonic()
    if now - SAID.get(words, -QUIET) >= QUIET:
        SAID[words] = now
        with suppress(OSError):
            print(words, file=sys.stderr, flush=True)


def _attempt(work):
    """The trouble that `work()` met and that may pass, or None."""
    try:
        work()
    except HfHubHTTPError as error:
        if error.response.status_code not in PASSING:
            raise
        return error
    except HTTPError as error:
        return error
    return None


def _wait(waits, trouble, stop):
    """Wait until the next attempt, and say why: each may take TIMEOUT. Raises `trouble` where there is none left."""
    seconds = next(waits, None)
    if seconds is None:
        raise trouble
    _say(f"{constants.ENDPOINT} {explanations.brief(trouble)}; asking again")
    headers = trouble.response.headers if isinstance(trouble, HfHubHTTPError) else {}
    asked = headers.get("Retry-After", "")
    stop.wait(min(max(seconds, int(asked) if asked.isdigit() else 0), LONGEST_WAIT))
