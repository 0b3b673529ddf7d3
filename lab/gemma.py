"""Stock Gemma-2, fit for batches: mlx-lm 0.32's attention of it takes no mask of a batch with prompts of several lengths.

Letters: B batch, K key-value heads, R query heads for each of them, T tokens, S tokens seen.
"""

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx_lm.models import gemma2


class Attention(gemma2.Attention):
    """The stock attention, whose scores are (B, K, R, T, S): a batch's mask (B, 1, T, S) lacks one dimension there.

    Where B is K the stock class does not even raise: it hides from a group of heads the padding of another prompt.
    """

    def __call__(self, x, mask=None, cache=None):
        if isinstance(mask, mx.array) and mask.ndim == 4 and self.repeats > 1:
            mask = mask[:, :, None]
        return super().__call__(x, mask, cache)


def fit_for_batches(model):
    """Give the layers of a Gemma-2 model, if it is one, that Attention; weights and results are the stock ones."""
    if type(model) is gemma2.Model:
        for layer in model.layers:
            layer.self_attn.__class__ = Attention
