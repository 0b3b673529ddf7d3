"""Is a converted model what its source was? Rows read back from each written shard, hashes, and a few generated tokens.

Letters: R rows, C columns of a weight.
"""

import random

from lab.device import computes_in_float32, mx  # isort: skip  (first: it puts the fast BLAS in front)
import numpy as np
from mlx.utils import tree_unflatten
from mlx_lm import load
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import make_prompt_cache

from lab import checkpoints
from lab.cli import CheckFailed
from lab.conversion import MLX, read_rows
from lab.conversion_plan import DTYPES

# What rounding a scale is worth: relative to it, and at least (float16 has few digits for small numbers).
ROUNDING = {"F32": (2**-24, 0.0), "BF16": (2**-8, 0.0), "F16": (2**-11, 2**-25)}
SAMPLES, SAMPLE_ROWS = 8, 64  # of a shard, and of each tensor among them
PROMPT, NEW_TOKENS = "안녕하세요", 3
CACHE_STEP = 8  # tokens that a layer's cache grows by; mlx-lm's 256 would hold megabytes a layer


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
    raw = mx.array(np.concatenate([read_rows(tensor, row, row + 1) for row in rows]))
    return raw.view(MLX[tensor.dtype]) if tensor.dtype in MLX else raw


def dequantize(packed, scales, biases, group_size, bits, dtype):
    """(values, bound of their error), both float32 (R, C).

    The bound is half a step, or a whole one at the last code, where MLX cuts off (it shifts the scale so that
    0 has a code), plus what rounding the scale to `dtype` adds. Source: measured on MLX 0.32.4, 2 to 8 bits.
    """
    codes = mx.dequantize(packed, mx.ones(scales.shape), mx.zeros(scales.shape), group_size, bits)
    scales, biases = (mx.repeat(part.astype(mx.float32), group_size, axis=1) for part in (scales, biases))
    steps = mx.where(codes == 2**bits - 1, 1.0, 0.5) + 1e-4  # and the rounding of this very comparison
    relative, least = ROUNDING[dtype]
    bound = steps * mx.abs(scales) + codes * mx.maximum(mx.abs(scales) * relative, least)
    return codes * scales + biases, bound


def check_answer(folder):
    """The few tokens that plain mlx-lm makes of a greeting, greedily, as text, with one layer in memory at a time.

    Raises CheckFailed where mlx-lm cannot load the result, or where that computes what is not finite.
    """
    try:  # a tokenizer's files can fail in ways without end, and none is ours
        model, tokenizer = load(str(folder), lazy=True, tokenizer_config={"trust_remote_code": False})
        prompt = tokenizer.encode(PROMPT)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckFailed(f"{folder}: mlx-lm cannot load the result ({reason}); mend the source") from error
    vocabulary = model.args.vocab_size
    if not prompt or max(prompt) >= vocabulary:
        what = f"its tokenizer makes {prompt} of {PROMPT!r}, the model has {vocabulary} tokens"
        raise CheckFailed(f"{folder}: {what}; use the tokenizer that belongs to the checkpoint")
    files = sorted(folder.glob("*.safetensors"))
    cache, said, tokens = make_prompt_cache(model), [], prompt
    for part in cache:
        part.step = CACHE_STEP
    model.load_weights(list(_lazy(files).items()))
    for _ in range(NEW_TOKENS):
        logits = last_logits(model, mx.array([tokens]), cache, _lazy(files))
        if not mx.all(mx.isfinite(logits)).item():
            raise CheckFailed(f"{folder}: the result computes values that are not finite; check the source")
        tokens = [int(mx.argmax(logits))]
        said += tokens
    return tokenizer.decode(said)


def last_logits(model, tokens, cache, following):
    """Logits (V,) after `tokens` (1, T); V vocabulary, T tokens.

    Every layer of a stock model is evaluated alone, then given its unread weights of `following`, {name: lazy array}.
    """
    inner = model.model
    hidden = inner.embed_tokens(tokens)
    mask = create_attention_mask(hidden, cache[0])
    for number, layer in enumerate(inner.layers):
        hidden = layer(hidden, mask, cache[number])
        mx.eval(hidden, cache[number].state)
        prefix = f"model.layers.{number}."
        own = {name.removeprefix(prefix): array for name, array in following.items() if name.startswith(prefix)}
        layer.update(tree_unflatten(list(own.items())))
    hidden = inner.norm(hidden[:, -1])
    head = model.lm_head if "lm_head" in model else inner.embed_tokens.as_linear
    return head(hidden)[0].astype(mx.float32)


def _lazy(files):
    """{name: array} of safetensors files, nothing read yet. On the CPU in float32, which it computes much faster."""
    arrays = {name: array for file in files for name, array in mx.load(str(file)).items()}
    if not computes_in_float32():
        return arrays
    return {
        name: array if array.dtype == mx.uint32 else array.astype(mx.float32) for name, array in arrays.items()
    }
