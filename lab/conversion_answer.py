"""Does plain mlx-lm run a converted model? A few generated tokens, with two layers in memory at a time."""

from lab.device import computes_in_float32, mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx import nn
from mlx.utils import tree_unflatten
from mlx_lm import load
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import make_prompt_cache

from lab.cli import CheckFailed
from lab.conversion_plan import cores

PROMPT, NEW_TOKENS = "안녕", 3
CACHE_STEP = 8  # tokens that a layer's cache grows by; mlx-lm's 256 would hold megabytes a layer


class OnAllCores(nn.QuantizedLinear):
    """A stock layer that computes a share of its outputs on each core: MLX computes a stream on one.

    Letters: B batch, T tokens, I inputs, O outputs.
    """

    def __call__(self, x):
        """(B, T, I) -> (B, T, O), the same sums as in the stock layer."""
        rows, lanes = self.weight.shape[0], len(self.streams)
        edges = [rows * place // lanes for place in range(lanes + 1)]
        shared = {"transpose": True, "group_size": self.group_size, "bits": self.bits, "mode": self.mode}
        parts = []
        for stream, first, last in zip(self.streams, edges, edges[1:], strict=False):
            own = (array[first:last] for array in (self.weight, self.scales, self.biases))
            parts.append(mx.quantized_matmul(x, *own, **shared, stream=stream))
        x = mx.concatenate(parts, axis=-1)
        return x + self["bias"] if "bias" in self else x


def check_answer(folder):
    """The few tokens that plain mlx-lm makes of a greeting, greedily, as text.

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
    if computes_in_float32():
        _use_all_cores(model)
    reading = mx.new_stream(mx.cpu)  # beside the streams that compute
    model.load_weights(list(_lazy(files, reading).items()))
    for _ in range(NEW_TOKENS):
        logits = last_logits(model, mx.array([tokens]), cache, _lazy(files, reading))
        if not mx.all(mx.isfinite(logits)).item():
            raise CheckFailed(f"{folder}: the result computes values that are not finite; check the source")
        tokens = [int(mx.argmax(logits))]
        said += tokens
    return tokenizer.decode(said)


def last_logits(model, tokens, cache, following):
    """Logits (V,) after `tokens` (1, T); V vocabulary, T tokens.

    A layer of a stock model is evaluated while the next one is read, then given its unread weights of `following`,
    {name: lazy array}.
    """
    inner = model.model
    hidden = inner.embed_tokens(tokens)
    mask = create_attention_mask(hidden, cache[0])
    for number, layer in enumerate(inner.layers):
        mx.async_eval([after.parameters() for after in inner.layers[number + 1 : number + 2]])
        hidden = layer(hidden, mask, cache[number])
        mx.eval(hidden, cache[number].state)
        prefix = f"model.layers.{number}."
        own = {name.removeprefix(prefix): array for name, array in following.items() if name.startswith(prefix)}
        layer.update(tree_unflatten(list(own.items())))
    hidden = inner.norm(hidden[:, -1])
    head = model.lm_head if "lm_head" in model else inner.embed_tokens.as_linear
    return head(hidden)[0].astype(mx.float32)


def _use_all_cores(model):
    OnAllCores.streams = [mx.new_stream(mx.cpu) for _ in range(cores())]
    for module in model.modules():
        if type(module) is nn.QuantizedLinear:
            module.__class__ = OnAllCores  # weights, names and numbers stay as mlx-lm made them


def _lazy(files, reading):
    """{name: array} of safetensors files, to be read on that stream. On the CPU in float32, which it computes much faster."""
    arrays = {name: array for file in files for name, array in mx.load(str(file), stream=reading).items()}
    if not computes_in_float32():
        return arrays
    return {
        name: array if array.dtype == mx.uint32 else array.astype(mx.float32, stream=reading)
        for name, array in arrays.items()
    }
