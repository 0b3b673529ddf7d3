"""Rows -> token sequences, by the tokenizer's own chat template, with exactly the tokens marked that are to be learnt.

A sequence is what the model sees when it answers: the template's generation prompt, then the answer up to and including
the end token. Where a template's history differs from its generation prompt (HyperCLOVA X Think drops the think block of
past turns), a dialogue of k answers becomes k sequences; where the history is a prefix, one sequence marks all answers.
"""

from dataclasses import dataclass

import numpy as np
from jinja2 import TemplateError

from lab.cli import LabError


@dataclass(frozen=True)
class Sequence:
    """Tokens (T,) int32 and `trained` (T,) bool: whether the model is taught to say that token. `where` is file:line."""

    tokens: np.ndarray
    trained: np.ndarray
    where: str = ""

    def __len__(self):
        return len(self.tokens)


def end_tokens(tokenizer):
    """The ids that end an answer: the tokenizer's end-of-sequence ids, as a set of int."""
    many = getattr(tokenizer, "eos_token_ids", None)
    return set(many) if isinstance(many, (set, list, tuple)) and many else {tokenizer.eos_token_id}


def render(tokenizer, messages, where="", **template):
    """The conversation as text, by the tokenizer's template. Raises LabError at `where` for one that it refuses."""
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **template)
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(
            f"{where}: the model's chat template refuses this dialogue ({reason}); mend the turns"
        ) from error


def prompt_tokens(tokenizer, messages, where="", **template):
    """The token ids of a conversation that waits for the assistant's answer."""
    text = render(tokenizer, messages, where, add_generation_prompt=True, **template)
    return tokenizer.encode(text, add_special_tokens=False)


def encode_row(tokenizer, row, where="", mask_prompt=False):
    """The sequences of one row of any of the three formats.

    `mask_prompt` marks only answers (and completions); without it every token is marked. Text rows are marked whole.
    """
    if "messages" in row:
        return _dialogue(tokenizer, row["messages"], row.get("tools"), where, mask_prompt)
    if "prompt" in row:
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        return _dialogue(tokenizer, turns, row.get("tools"), where, mask_prompt)
    tokens = tokenizer.encode(row["text"])
    if tokens[-1] not in end_tokens(tokenizer):
        tokens = [*tokens, tokenizer.eos_token_id]
    return [_sequence(tokens, [True] * len(tokens), where)]


def _sequence(tokens, trained, where):
    return Sequence(np.asarray(tokens, dtype=np.int32), np.asarray(trained, dtype=bool), where)


def _dialogue(tokenizer, messages, tools, where, mask_prompt):
    template = {"tools": tools} if tools else {}
    sequences = []
    for place, turn in enumerate(messages):
        if turn["role"] != "assistant":
            continue
        prompt = prompt_tokens(tokenizer, messages[:place], where, **template)
        tokens = prompt + _answer_tokens(tokenizer, messages[: place + 1], where, template)
        trained = [not mask_prompt] * len(prompt) + [True] * (len(tokens) - len(prompt))
        if sequences and list(sequences[-1].tokens) == tokens[: len(sequences[-1])]:
            earlier = sequences.pop()  # the history is a prefix: keep its marks, in one sequence
            trained[: len(earlier)] = list(earlier.trained)
        sequences.append(_sequence(tokens, trained, where))
    return sequences


def _answer_tokens(tokenizer, messages, where, template):
    """The last turn as the model should say it: its text, then what closes a turn in the template, to the end token."""
    rendered = render(tokenizer, messages, where, **template)
    prompt = render(tokenizer, messages[:-1], where, add_generation_prompt=True, **template)
    if rendered.startswith(prompt):
        answer = rendered[len(prompt) :]
    else:
        answer = _apart(tokenizer, messages, rendered, where, template)
    tokens = tokenizer.encode(answer, add_special_tokens=False)
    ends = end_tokens(tokenizer)
    last = next((i for i, token in enumerate(tokens) if token in ends), None)
    return [*tokens, tokenizer.eos_token_id] if last is None else tokens[: last + 1]


def _apart(tokenizer, messages, rendered, where, template):
    """The last answer and its closing out of `rendered`, where the generation prompt is not a prefix of the history.

    A stand-in for the answer shows what the template writes after it.
    """
    content, stand_in = messages[-1]["content"].strip(), "answer-stands-here"
    if messages[-1].get("tool_calls"):
        raise LabError(f"{where}: this model's chat template cannot train tool calls; remove the row")
    shown = render(tokenizer, [*messages[:-1], {"role": "assistant", "content": stand_in}], where, **template)
    closing = shown.rpartition(stand_in)[2]
    body = rendered[: len(rendered) - len(closing)].rstrip()
    if not closing or not rendered.endswith(closing) or not body.endswith(content):
        raise LabError(
            f"{where}: the chat template changes the answer's text (a think block in it?); give the answer alone"
        )
    return content + closing
