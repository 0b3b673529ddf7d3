"""From the tensors of a checkpoint to those of the converted one, and the checks that they are the same.

`plan` is convert_hyperclova's Plan, `args` its flags: dtype, q_bits, q_group_size.
"""

import os
import random

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import numpy as np
from mlx_lm import generate, load

from lab import checkpoints
from lab.cli import CheckFailed, LabError
from lab.progress import progress

# What rounding a scale is worth: relative to it, and at least (float16 has few digits for small numbers).
ROUNDING = {"F32": (2**-24, 0.0), "BF16": (2**-8, 0.0), "F16": (2**-11, 2**-25)}
SAMPLES, SAMPLE_ROWS = 8, 512
PROMPT, NEW_TOKENS = "안녕하세요", 8


def stream(plan, args):
    """Yield the bytes of every tensor to write, in the plan's order, with one source tensor in memory.

    Raises LabError for a value that is not finite.
    """
    shard, lazy = None, {}
    for tensor, made in progress(plan.steps, "converting"):
        if tensor.shard != shard:
            shard, lazy = tensor.shard, mx.load(str(tensor.shard))
        weight = _as_asked(lazy.pop(tensor.name), args)
        if not mx.all(mx.isfinite(weight)).item():
            what = f"{tensor.name} has values that are not finite in {weight.dtype}"
            raise LabError(f"{tensor.shard}: {what}; download this file again, or choose another --dtype")
        parts = mx.quantize(weight, args.q_group_size, args.q_bits) if len(made) == 3 else (weight,)
        mx.eval(parts)
        del weight
        for part in parts:
            yield memoryview(np.asarray(part.view(mx.uint8)))
        mx.clear_cache()


def _as_asked(array, args):
    return array.astype(getattr(mx, args.dtype)) if args.dtype else array


def check_samples(folder, plan, args):
    """Read some tensors back from `folder` and compare them with the source; returns how many.

    Raises CheckFailed where an element is off by more than the quantizer may be.
    """
    where = checkpoints.weight_map(folder)
    steps = random.Random(0).sample(plan.steps, min(SAMPLES, len(plan.steps)))
    for tensor, made in steps:
        rows = slice(None, None, max(1, tensor.shape[0] // SAMPLE_ROWS))
        wanted = _as_asked(mx.load(str(tensor.shard))[tensor.name], args)[rows].astype(mx.float32)
        parts = [mx.load(str(folder / where[part.name]))[part.name][rows] for part in made]
        found, limit = parts[0].astype(mx.float32), 0.0
        if len(made) == 3:
            found, limit = dequantize(*parts, args.q_group_size, args.q_bits, made[1].dtype)
        if not mx.all(mx.abs(found - wanted) <= limit).item():
            raise CheckFailed(f"{folder}: {made[0].name} is not what {tensor.name} was; convert it again")
    return len(steps)


def dequantize(packed, scales, biases, group_size, bits, dtype):
    """(values, bound of their error), both float32 (R, C); R rows, C columns of the weight.

    The bound is half a step, or a whole one at the last code, where MLX cuts off (it shifts the scale so that
    0 has a code), plus what rounding the scale to `dtype` adds. Source: measured on MLX 0.32.4, 2 to 8 bits.
    """
    codes = mx.dequantize(packed, mx.ones(scales.shape), mx.zeros(scales.shape), group_size, bits)
    scales, biases = (mx.repeat(part.astype(mx.float32), group_size, axis=1) for part in (scales, biases))
    steps = mx.where(codes == 2**bits - 1, 1.0, 0.5) + 1e-4  # and the rounding of this very comparison
    relative, least = ROUNDING[dtype]
    bound = steps * mx.abs(scales) + codes * mx.maximum(mx.abs(scales) * relative, least)
    return codes * scales + biases, bound


def check_answer(folder, plan):
    """The few tokens that plain mlx-lm makes of a greeting, as text; None where memory is too small for it.

    Raises CheckFailed where mlx-lm cannot load the result, or where that computes what is not finite.
    """
    if plan.output_bytes > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        return None
    try:
        model, tokenizer = load(str(folder))
    except (ValueError, RuntimeError, OSError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckFailed(f"{folder}: mlx-lm cannot load the result ({reason}); mend the source") from error
    prompt = tokenizer.encode(PROMPT)
    if tokenizer.chat_template is not None:
        turns = [{"role": "user", "content": PROMPT}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    if not mx.all(mx.isfinite(model(mx.array([prompt])))).item():
        raise CheckFailed(f"{folder}: the result computes values that are not finite; check the source")
    return generate(model, tokenizer, prompt, max_tokens=NEW_TOKENS)
