"""From the tensors of a checkpoint to those of the converted one, chunk by chunk: the peak memory is that of some chunks.

Letters: R rows, C columns of a weight. Rows are quantized apart from each other, so chunks change no bit.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import prod

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import numpy as np

from lab import shards
from lab.cli import LabError
from lab.conversion_plan import CHUNK_BYTES, DTYPES, cores, outputs_of

NUMPY = {"F32": np.dtype("<u4"), "U32": np.dtype("<u4"), "BF16": np.dtype("<u2"), "F16": np.dtype("<u2")}
MLX = {code: getattr(mx, name) for name, code in DTYPES.items()}
EXPONENT = {"F32": 0x7F800000, "BF16": 0x7F80, "F16": 0x7C00}  # all of its bits set: infinite, or not a number


@dataclass(frozen=True)
class Chunk:
    """Rows `first` to `last` (not included) of a Piece, as a part of `step`; `ends` where the step ends with them."""

    step: object
    piece: object
    first: int
    last: int
    ends: bool


def chunks_of(steps):
    """The Chunks of `steps`, in the order in which they are written."""
    for step in steps:
        for piece in step.recipe.pieces:
            rows = piece.tensor.shape[0] if piece.tensor.shape else 1
            height = max(1, CHUNK_BYTES * rows // max(1, piece.tensor.nbytes))
            for first in range(0, rows, height):
                last = min(first + height, rows)
                yield Chunk(step, piece, first, last, last == rows and piece is step.recipe.pieces[-1])


class Engine:
    """Writes shards: one thread reads ahead, this one quantizes on every core, one writes behind.

    `args` are the command's flags: dtype, q_bits, q_group_size. `told` takes the number of bytes read.
    """

    def __init__(self, args, told):
        self.args, self.told = args, told
        on_gpu = mx.default_device() == mx.Device(mx.gpu)
        self.streams = (
            [mx.default_stream(mx.gpu)] * 2 if on_gpu else [mx.new_stream(mx.cpu) for _ in range(cores())]
        )
        mx.set_cache_limit(len(self.streams) * CHUNK_BYTES)

    def write(self, path, steps):
        """Write the shard of `steps` to `path`, synced to the disk; returns the hexadecimal SHA-256 of the file.

        Raises LabError for a value that is not finite, and where the disk is full.
        """
        chunks = chunks_of(steps)
        groups = iter(lambda: list(islice(chunks, len(self.streams))), [])
        with shards.ShardWriter(path) as writer, ThreadPoolExecutor(1) as ahead:
            writer.put(shards.header_of(outputs_of(steps)))
            held, made, group = [], [], next(groups, [])
            coming = ahead.submit(self.read, group)
            while group or made:
                computing = self.begin(group, coming.result())
                following = next(groups, [])
                coming = ahead.submit(self.read, following)
                for chunk, parts in made:  # while the next ones are computed
                    held = self.put(writer, chunk, parts, held)
                    self.told(chunk_bytes(chunk))
                made, group = computing, following
        mx.clear_cache()
        return writer.digest.hexdigest()

    def read(self, group):
        """The stored numbers of the group's chunks, as arrays of unsigned integers (R, C) or (R,). Raises LabError."""
        return [read_rows(chunk.piece.tensor, chunk.first, chunk.last) for chunk in group]

    def begin(self, group, raws):
        """[(chunk, what it becomes in each of its step's outputs, as bytes)], each being computed on a core of its own."""
        made = []
        for chunk, raw, stream in zip(group, raws, self.streams, strict=False):
            with mx.stream(stream):
                made.append((chunk, [part.view(mx.uint8) for part in self.parts(chunk, raw)]))
        mx.async_eval([parts for _, parts in made])
        return made

    def parts(self, chunk, raw):
        """The lazy parts of a chunk. A factor of 1 and the stored number format leave every bit as it is."""
        tensor, factor = chunk.piece.tensor, chunk.piece.factor
        weight = mx.array(raw).view(MLX[tensor.dtype])
        wanted = MLX[DTYPES.get(self.args.dtype, tensor.dtype)]
        if factor != 1:
            weight = weight.astype(mx.float32) * factor
        weight = weight.astype(wanted)
        if chunk.step.quantized:
            return mx.quantize(weight, self.args.q_group_size, self.args.q_bits)
        return (weight,)

    def put(self, writer, chunk, parts, held):
        """Queue a chunk's parts: weights at once; scales and biases, which come after them in the file, at the end."""
        outputs = chunk.step.outputs
        arrays = [np.asarray(part) for part in parts]
        for array, output in zip(arrays, outputs, strict=True):
            refuse_not_finite(
                array, output.dtype, f"{chunk.piece.tensor.shard}: {output.name}", "choose another --dtype"
            )
        writer.put(arrays[0])
        held = [*held, arrays[1:]]
        if chunk.ends:
            for place in range(len(outputs) - 1):
                for part in held:
                    writer.put(part[place])
            held = []
        return held


def chunk_bytes(chunk):
    """The bytes of the source that a chunk takes."""
    return (chunk.last - chunk.first) * row_bytes(chunk.piece.tensor)


def row_bytes(tensor):
    """The bytes of a row of `tensor`."""
    return prod(tensor.shape[1:]) * NUMPY[tensor.dtype].itemsize


def read_rows(tensor, first, last):
    """Rows `first` to `last` (not included) of a stored Tensor, as unsigned integers. Raises LabError where they are not finite."""
    size, stored = row_bytes(tensor), NUMPY[tensor.dtype]
    raw = np.empty((last - first, *tensor.shape[1:]) if tensor.shape else (1,), dtype=stored)
    view, place = memoryview(raw).cast("B") if raw.size else memoryview(b""), 0
    try:
        with open(tensor.shard, "rb", buffering=0) as file:
            file.seek(tensor.offset + first * size)
            while place < len(view):
                if not (found := file.readinto(view[place:])):
                    raise LabError(f"{tensor.shard}: ends in {tensor.name}; download this file again")
                place += found
    except OSError as error:
        raise LabError(f"{tensor.shard}: cannot read ({error.strerror}); download this file again") from error
    refuse_not_finite(raw, tensor.dtype, f"{tensor.shard}: {tensor.name}", "download this file again")
    return raw


def refuse_not_finite(array, dtype, what, remedy):
    """Raise LabError where the stored numbers of `array` (any integer view) in the format `dtype` are not all finite."""
    if dtype in EXPONENT and array.size:
        bits, first = array.reshape(-1).view(NUMPY[dtype]), EXPONENT[dtype]
        signed = bits.view(f"i{bits.itemsize}")
        # Infinities and what is no number are the largest of either sign; no copy of the array is made.
        if signed.max() >= first or bits.max() >= (first | 1 << 8 * bits.itemsize - 1):
            raise LabError(f"{what} has values that are not finite in {dtype}; {remedy}")
