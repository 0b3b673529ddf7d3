"""Attention and LoRA projections of llama and Gemma-2 in fewer and cheaper passes over memory, for MLX on the CPU.

Exponentials are taken as lab.cpu_pointwise does and kept for the backward pass, adapters are added inside the product, and
there are no scores above the diagonal but next to it. Same mathematics as the stock modules, float32 throughout; tests
hold both together.

Letters: B batch, T tokens, N positions (B x T), K key-value heads, R query heads for each of them, D head dimension,
I and O a projection's inputs and outputs, r rank.
"""

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)

from lab.cpu_pointwise import LOG2_E, power_of_2, tanh

HIDDEN = -1e9  # added to a score that must not count
QUERIES = 96  # of a block: enough for efficient products, few enough to leave out most of what the mask hides


def attention(queries, keys, values, scale, cap=None):
    """softmax(queries keys^T scale) values under a causal mask: queries (B, K, R, T, D), keys and values (B, K, T, D).

    With `cap` each score s becomes cap tanh(s / cap) before the softmax, whose division comes after the product with the
    values: their added column of ones gives the divisor.
    """
    tokens, blocks = queries.shape[3], spans(queries.shape[3], queries.shape[2])

    @mx.custom_function
    def attend(queries, keys, values):
        scaled, widened = queries * _to_bits(scale, cap), _with_ones(values)
        sums, kept = zip(*(span.forward(scaled, keys, widened, cap) for span in blocks), strict=True)
        sums = mx.concatenate(sums, axis=3)
        divisors = sums[..., -1:]
        return sums[..., :-1] / divisors, divisors, *(array for each in kept for array in each)

    @attend.vjp
    def gradient(inputs, cotangents, results):
        (queries, keys, values), (outputs, divisors, *kept) = inputs, results
        number = len(kept) // len(blocks)
        given = cotangents[0] / divisors
        given = mx.concatenate([given, -(given * outputs).sum(axis=-1, keepdims=True)], axis=-1)
        arrays = queries * scale, keys * scale, _with_ones(values), given
        parts = [
            span.backward(*arrays, *kept[number * place : number * (place + 1)])
            for place, span in enumerate(blocks)
        ]
        by_query, by_key, by_value = zip(*parts, strict=True)
        return mx.concatenate(by_query, axis=3), _summed(by_key, tokens), _summed(by_value, tokens)

    return attend(queries, keys, values)[0]


def _to_bits(scale, cap):
    """What queries are multiplied by, so that their products with keys are scores in bits, or what `tanh` takes."""
    return scale * LOG2_E if cap is None else scale * 2 * LOG2_E / cap


def spans(tokens, repeats):
    """The parts into which the queries of `tokens` positions are cut, `repeats` heads for each key-value head."""
    blocks = -(-tokens // QUERIES)
    edges = [tokens * place // blocks for place in range(blocks + 1)]
    return [Span(first, last, repeats) for first, last in zip(edges, edges[1:], strict=False)]


def attention_after(queries, keys, values, scale, before, cap=None):
    """`attention` of tokens that follow a beginning, the same for all rows; no gradients.

    `before` are the beginning's keys and values, each (1, K, P, D): the batch is folded into the rows of one product.
    """
    batch, groups, repeats, tokens, size = queries.shape
    scaled = (queries * _to_bits(scale, cap)).reshape(batch, groups, repeats * tokens, size)
    old_keys, old_values = before
    own, old = scaled @ keys.swapaxes(-1, -2), _folded(scaled) @ old_keys.swapaxes(-1, -2)
    if cap is not None:
        own, old = (tanh(scores) * (cap * LOG2_E) for scores in (own, old))
    mask = mx.arange(tokens)[:, None] >= mx.arange(tokens)
    own = own + mx.tile(mx.where(mask, 0.0, HIDDEN), (repeats, 1))
    largest = mx.maximum(own.max(axis=-1, keepdims=True), _unfolded(old.max(axis=-1, keepdims=True), batch))
    sums = power_of_2(own - largest) @ _with_ones(values)
    sums = sums + _unfolded(power_of_2(old - _folded(largest)) @ _with_ones(old_values), batch)
    return (sums[..., :-1] / sums[..., -1:]).reshape(queries.shape)


def _folded(array):
    """(B, K, X, Y) -> (1, K, B x X, Y)."""
    return array.swapaxes(0, 1).reshape(1, array.shape[1], -1, array.shape[3])


def _unfolded(array, batch):
    """(1, K, B x X, Y) -> (B, K, X, Y)."""
    return array.reshape(array.shape[1], batch, -1, array.shape[3]).swapaxes(0, 1)


def _with_ones(values):
    return mx.concatenate([values, mx.ones((*values.shape[:-1], 1))], axis=-1)


def _summed(parts, tokens):
    """The sum of arrays (B, K, at most T, D), each as if continued with zeros."""
    total = parts[-1]
    for part in parts[:-1]:
        total = total + mx.pad(part, [(0, 0), (0, 0), (0, tokens - part.shape[2]), (0, 0)])
    return total


class Span:
    """Queries `first` to `last` (exclusive) against the keys before `last`; rows of scores are (repeat, query)."""

    def __init__(self, first, last, repeats):
        self.first, self.last, self.repeats = first, last, repeats

    def rows(self, array):
        """(B, K, R, T, X) -> this span's (B, K, R x span, X)."""
        part = array[:, :, :, self.first : self.last]
        return part.reshape(*part.shape[:2], -1, part.shape[-1])

    def unrows(self, array):
        return array.reshape(*array.shape[:2], self.repeats, self.last - self.first, -1)

    def forward(self, scaled, keys, widened, cap):
        """(values and ones, summed with the powers as weights; what `backward` takes besides)."""
        mask = mx.arange(self.first, self.last)[:, None] >= mx.arange(self.last)
        mask = mx.tile(mx.where(mask, 0.0, HIDDEN), (self.repeats, 1))
        scores, kept = self.rows(scaled) @ keys[:, :, : self.last].swapaxes(-1, -2), []
        if cap is not None:
            kept = [tanh(scores)]
            scores = kept[0] * (cap * LOG2_E)
        scores = scores + mask
        powers = power_of_2(scores - scores.max(axis=-1, keepdims=True))
        return self.unrows(powers @ widened[:, :, : self.last]), [powers, *kept]

    def backward(self, queries, keys, widened, given, powers, capped=None):
        """Cotangents of queries, keys and values; queries and keys come times scale.

        `given` (B, K, R, T, D + 1) are the outputs' cotangents over the divisors, and what the divisors' own take off;
        `capped` are the tanh of capped scores.
        """
        given = self.rows(given)
        scores = powers * (given @ widened[:, :, : self.last].swapaxes(-1, -2))
        if capped is not None:
            scores = scores * (1 - capped * capped)
        by_query = self.unrows(scores @ keys[:, :, : self.last])
        by_key = scores.swapaxes(-1, -2) @ self.rows(queries)
        return by_query, by_key, powers.swapaxes(-1, -2) @ given[..., :-1]


def lora(inputs, weights, adapters, scale):
    """inputs weight^T + scale (inputs a) b for each weight (O, I) and adapter (a (I, r), b (r, O)); inputs (N, I).

    The weights are constants. Several projections of the same inputs share the products with a, and their gradients
    flow back through one sum.
    """
    number = len(weights)
    edges = [0]
    for a, _ in adapters:
        edges.append(edges[-1] + a.shape[1])
    parts = [slice(first, last) for first, last in zip(edges, edges[1:], strict=False)]

    @mx.custom_function
    def project(inputs, *factors):
        low = inputs @ mx.concatenate(factors[:number], axis=1)
        outputs = [inputs @ weight.T for weight in weights]
        added = zip(outputs, parts, factors[number:], strict=True)
        return *(mx.addmm(output, low[:, part], b, alpha=scale) for output, part, b in added), low

    @project.vjp
    def gradient(primals, cotangents, outputs):
        inputs, *factors = primals
        low, cotangents = outputs[-1], cotangents[:number]
        shrunk = [given @ (b.T * scale) for given, b in zip(cotangents, factors[number:], strict=True)]
        shrunk = mx.concatenate(shrunk, axis=1)
        by_input = cotangents[0] @ weights[0]
        for given, weight in zip(cotangents[1:], weights[1:], strict=True):
            by_input = mx.addmm(by_input, given, weight)
        by_input = mx.addmm(by_input, shrunk, mx.concatenate(factors[:number], axis=1).T)
        by_a = inputs.T @ shrunk
        by_b = [(low[:, part].T @ given) * scale for part, given in zip(parts, cotangents, strict=True)]
        return by_input, *(by_a[:, part] for part in parts), *by_b

    factors = [a for a, _ in adapters] + [b for _, b in adapters]
    return project(inputs, *factors)[:number]
