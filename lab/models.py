"""Load a model and its adapter the right way for the device, and let it answer in batches, greedily."""

from pathlib import Path

from lab.device import computes_in_float32, mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx_lm import batch_generate
from mlx_lm import utils as mlx_lm_utils

from lab import adapters, chat
from lab.cli import LabError
from lab.hub import check_model


def load(model_path, adapter_path=None):
    """(model, tokenizer) from a local folder, ready to compute on this device.

    On the CPU everything becomes float32 and 8-bit layers are dequantized once: the same weights, much faster.
    Raises LabError where the folder is missing or not a model.
    """
    check_model(model_path)
    try:
        model, tokenizer, config = mlx_lm_utils.load(
            str(model_path), lazy=computes_in_float32(), return_config=True
        )
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        raise LabError(f"{model_path}: cannot load ({str(error).splitlines()[0]}); convert it again") from error
    if computes_in_float32():
        model.set_dtype(mx.float32)
        model = mlx_lm_utils.dequantize_model(model)
        mx.eval(model.parameters())
    adapters.note_quantization(model, config)
    model.freeze()
    model.eval()
    if adapter_path is not None:
        adapters.apply(model, adapter_path)
    return model, tokenizer


def load_tokenizer(model_path):
    """The tokenizer of a local model folder, with every end token that its generation config names."""
    check_model(model_path)
    path = Path(model_path)
    ends = mlx_lm_utils.load_config(path).get("eos_token_id")
    return mlx_lm_utils.load_tokenizer(path, eos_token_ids=ends)


def switch_adapter(model, adapter_path):
    """Take off what adapter `model` has and put on that of `adapter_path` (None: leave it bare)."""
    adapters.remove(model)
    if adapter_path is not None:
        adapters.apply(model, adapter_path)
    model.eval()


def answer(model, tokenizer, questions, max_tokens=64, batch_size=64):
    """The model's greedy chat answers: `questions` are strings or message lists; special tokens are not shown."""
    turns = [[{"role": "user", "content": item}] if isinstance(item, str) else item for item in questions]
    prompts = [chat.prompt_tokens(tokenizer, messages) for messages in turns]
    return generate(model, tokenizer, prompts, max_tokens, batch_size)


def complete(model, tokenizer, beginnings, max_tokens=48, batch_size=64):
    """The model's greedy continuations of plain text beginnings, as text (a leading space is kept)."""
    prompts = [tokenizer.encode(text) for text in beginnings]
    return generate(model, tokenizer, prompts, max_tokens, batch_size)


def generate(model, tokenizer, prompts, max_tokens, batch_size=64):
    """Greedy continuations of token lists, at most `batch_size` at a time, in the order given."""
    if not prompts:
        return []
    sizes = {"completion_batch_size": batch_size, "prefill_batch_size": batch_size}
    response = batch_generate(model, tokenizer, prompts, max_tokens=max_tokens, return_token_ids=True, **sizes)
    return [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in response.token_ids]
