"""Load a model and its adapter the right way for the device, and let it answer in batches, greedily."""

from contextlib import nullcontext

from lab.device import computes_in_float32, mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx_lm import utils as mlx_lm_utils
from mlx_lm.generate import BatchGenerator
from mlx_lm.sample_utils import make_sampler

from lab import adapters, answers, blas, chat, gemma
from lab.cli import LabError
from lab.hub import SMALL_HIDDEN, model_folder


def load(model_path, adapter_path=None):
    """(model, tokenizer) from a local folder or an id on the hub, ready to compute on this device.

    On the CPU everything becomes float32 and 8-bit layers are dequantized once: the same weights, much faster.
    Raises LabError where the folder is missing or not a model.
    """
    folder = model_folder(model_path)
    try:
        model, tokenizer, config = mlx_lm_utils.load(str(folder), lazy=computes_in_float32(), return_config=True)
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        raise LabError(f"{model_path}: cannot load ({str(error).splitlines()[0]}); convert it again") from error
    _refuse_unread_rope(model_path, model, config)
    if computes_in_float32():
        model.set_dtype(mx.float32)
        model = mlx_lm_utils.dequantize_model(model)
        mx.eval(model.parameters())
    with_turn_ends(tokenizer)
    gemma.fit_for_batches(model)
    adapters.note_quantization(model, config)
    model.freeze()
    model.eval()
    if adapter_path is not None:
        adapters.apply(model, adapter_path)
    return model, tokenizer


def _refuse_unread_rope(model_path, model, config):
    """Raise LabError where the positions' base stands where mlx-lm's model of this kind does not look, and is another."""
    written, read = (
        (config.get("rope_parameters") or {}).get("rope_theta"),
        getattr(model.args, "rope_theta", None),
    )
    if written is not None and read is not None and written != read:
        what = f"rope_theta {written} stands in rope_parameters alone, and mlx-lm would take {read}"
        raise LabError(f'{model_path}/config.json: {what}; put "rope_theta": {written} at the top level')


def load_tokenizer(model_path):
    """The tokenizer of a model folder or an id on the hub, with every end token that its generation config names."""
    path = model_folder(model_path)
    ends = mlx_lm_utils.load_config(path).get("eos_token_id")
    return with_turn_ends(mlx_lm_utils.load_tokenizer(path, eos_token_ids=ends))


def with_turn_ends(tokenizer):
    """`tokenizer`, for which the special token that its template closes an answer with is an end token.

    Gemma's tokenizer calls <eos> its end, its turns end with <end_of_turn>: a configuration may list the first alone.
    """
    for token in answers.turn_ends(tokenizer):
        tokenizer.add_eos_token(token)
    return tokenizer


def switch_adapter(model, adapter_path):
    """Take off what adapter `model` has and put on that of `adapter_path` (None: leave it bare)."""
    adapters.remove(model)
    if adapter_path is not None:
        adapters.apply(model, adapter_path)
    model.eval()


def answer(model, tokenizer, questions, max_tokens=64, batch_size=64):
    """The model's greedy chat answers: `questions` are strings or message lists; special tokens are not shown."""
    return generate(model, tokenizer, chat_prompts(tokenizer, questions), max_tokens, batch_size)


def chat_prompts(tokenizer, questions):
    """The token lists of `questions`, strings or message lists, that wait for the assistant's answer."""
    turns = [[{"role": "user", "content": item}] if isinstance(item, str) else item for item in questions]
    return [chat.prompt_tokens(tokenizer, messages) for messages in turns]


def user_opening(tokenizer):
    """The tokens after which a user's first words stand: what the template writes before them."""
    opening = answers.history(tokenizer, [{"role": "user", "content": "?"}], "the chat template", {})
    return tokenizer.encode(opening, add_special_tokens=False)


def sampled(model, tokenizer, prompts, max_tokens, batch_size, temperature, seed):
    """As `generated`, but drawn at `temperature`; the same seed and batch size draw the same."""
    mx.random.seed(seed)
    return generated(model, tokenizer, prompts, max_tokens, batch_size, sampler=make_sampler(temperature))


def complete(model, tokenizer, beginnings, max_tokens=48, batch_size=64):
    """The model's greedy continuations of plain text beginnings, as text (a leading space is kept)."""
    prompts = [tokenizer.encode(text) for text in beginnings]
    return generate(model, tokenizer, prompts, max_tokens, batch_size)


def generate(model, tokenizer, prompts, max_tokens, batch_size=64):
    """Greedy continuations of token lists, as text, at most `batch_size` at a time, in the order given."""
    return [text for text, _ in generated(model, tokenizer, prompts, max_tokens, batch_size)]


def is_small(model):
    """Whether one BLAS thread serves `model` best, and prompts read together: on the CPU, up to the embedded models' size."""
    return computes_in_float32() and model.args.hidden_size <= SMALL_HIDDEN


def suited_threads(model):
    """A context in which the BLAS computes with as many threads as suit `model`."""
    return blas.threads(1) if is_small(model) else nullcontext()


def generated(model, tokenizer, prompts, max_tokens, batch_size=64, **drawing):
    """[(text, whether the model ended it)] that continues token lists; a text not ended was cut at its limit.

    `max_tokens` is one limit or a list of them. Greedy, but for `drawing`: one `sampler` for all, or lists with an entry
    for each prompt, `samplers` and `logits_processors`, as BatchGenerator.insert of mlx_lm takes them.
    """
    if not prompts:
        return []
    limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else list(max_tokens)
    # Of one length, where they can be: what is padded away is computed all the same.
    order = sorted(range(len(prompts)), key=lambda place: (limits[place], len(prompts[place])))
    # mlx_lm fills each place that falls free at once. For short answers of a small model that is many prompts read alone,
    # which takes longer than waiting for the last of a batch: 10 to 25 % of the CPU time.
    step = batch_size if is_small(model) else len(order)
    with suited_threads(model):
        said = [
            tokens
            for start in range(0, len(order), step)
            for tokens in _batch(
                model, tokenizer, prompts, limits, order[start : start + step], batch_size, drawing
            )
        ]
    found = dict(zip(order, said, strict=True))
    return [
        (tokenizer.decode(found[place], skip_special_tokens=True), len(found[place]) < limits[place])
        for place in range(len(prompts))
    ]


def _batch(model, tokenizer, prompts, limits, places, batch_size, drawing):
    """The tokens that continue the prompts at `places`."""
    ends, drawing = [[token] for token in tokenizer.eos_token_ids], dict(drawing)
    sizes = {"completion_batch_size": batch_size, "prefill_batch_size": batch_size}
    generator = BatchGenerator(model, stop_tokens=ends, sampler=drawing.pop("sampler", None), **sizes)
    own = {key: [entries[place] for place in places] for key, entries in drawing.items()}
    asked, longest = [prompts[place] for place in places], [limits[place] for place in places]
    said = {number: [] for number in generator.insert(asked, longest, **own)}
    while responses := generator.next_generated():
        for response in responses:
            if response.finish_reason != "stop":  # the end token is not shown
                said[response.uid].append(response.token)
    generator.close()
    return list(said.values())
