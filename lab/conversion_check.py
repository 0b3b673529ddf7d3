"""Is a converted model what its source was? Rows read back from each written shard, against the source.

Letters: R rows, C columns of a weight.
"""

import random

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import numpy as np

from lab import checkpoints
from lab.cli import CheckFailed
from lab.conversion import MLX, read_rows
from lab.conversion_plan import DTYPES

# What rounding a scale is worth: relative to it, and at least (float16 has few digits for small numbers).
ROUNDING = {"F32": (2**-24, 0.0), "BF16": (2**-8, 0.0), "F16": (2**-11, 2**-25)}
SAMPLES, SAMPLE_ROWS = 8, 64  # of a shard, and of each tensor among them


def check_shard(path, steps, args):
    """Compare sampled rows of the written shard with the source; returns the number of tensors compared.

    Raises CheckFailed where an element is off by more than the quantizer may be.
    """
    written = {tensor.name: tensor for tensor in checkpoints.read_shard(path)}
    chosen = random.Random(path.name).sample(steps, min(SAMPLES, len(steps)))
    for step in chosen:
        height = step.recipe.shape[0] if step.recipe.shape else 1
        rows = range(0, height, max(1, height // SAMPLE_ROWS))
        parts = [stored_rows(written[tensor.name], rows) for tensor in step.outputs]
        found, limit = parts[0].astype(mx.float32), 0.0
        if step.quantized:
            found, limit = dequantize(*parts, args.q_group_size, args.q_bits, step.outputs[1].dtype)
        if not mx.all(mx.abs(found - wanted_rows(step, rows, args)) <= limit).item():
            source = " + ".join(piece.tensor.name for piece in step.recipe.pieces)
            raise CheckFailed(f"{path}: {step.recipe.name} is not what {source} was; convert it again")
    return len(chosen)


def wanted_rows(step, rows, args):
    """Rows of a step's weight before quantization, float32, rounded to the number format that is written."""
    found, start = [], 0
    for piece in step.recipe.pieces:
        height = piece.tensor.shape[0] if piece.tensor.shape else 1
        own = [row - start for row in rows if start <= row < start + height]
        if own:
            weight = stored_rows(piece.tensor, own).astype(mx.float32) * piece.factor
            found.append(weight.astype(MLX[DTYPES.get(args.dtype, piece.tensor.dtype)]).astype(mx.float32))
        start += height
    return mx.concatenate(found)


def stored_rows(tensor, rows):
    """Rows of a stored Tensor as an array of its own number format, or uint32 for packed weights."""
    raw = mx.array(np.concatenate([read_rows(tensor, first, last) for first, last in runs(rows)]))
    return raw.view(MLX[tensor.dtype]) if tensor.dtype in MLX else raw


def runs(rows):
    """[(first, last, not included)] of the neighbours among ascending `rows`: each run is read at once."""
    found = []
    for row in rows:
        if found and found[-1][1] == row:
            found[-1] = found[-1][0], row + 1
        else:
            found.append((row, row + 1))
    return found


def dequantize(packed, scales, biases, group_size, bits, dtype):
    """(values, bound of their error), both float32 (R, C).

    The bound is half a step, or a whole one at the last code, where MLX cuts off (it shifts the scale so that
    0 has a code), plus what rounding the scale to `dtype` adds: the step may have been that much larger, and each code
    counts it. Source: measured on MLX 0.32.4, 2 to 8 bits.
    """
    codes = mx.dequantize(packed, mx.ones(scales.shape), mx.zeros(scales.shape), group_size, bits)
    scales, biases = (mx.repeat(part.astype(mx.float32), group_size, axis=1) for part in (scales, biases))
    steps = mx.where(codes == 2**bits - 1, 1.0, 0.5) + 1e-4  # and the rounding of this very comparison, as below
    relative, least = ROUNDING[dtype]
    rounding = mx.maximum(mx.abs(scales) * relative, least)
    bound = steps * (mx.abs(scales) + rounding) + codes * rounding + mx.abs(biases) * 2**-23
    return codes * scales + biases, bound
