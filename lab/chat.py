"""Rows -> token sequences, by the tokenizer's own chat template, with exactly the tokens marked that are to be learnt.

A sequence is what the model sees when it answers: the template's generation prompt, then the answer up to and including
the end token. Where a template's history differs from its generation prompt (HyperCLOVA X Think drops the think block of
past turns), a dialogue of k answers becomes k sequences; where the history is a prefix, one sequence marks all answers.
"""

import json
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lab import answers
from lab.answers import end_tokens, render
from lab.cli import LabError
from lab.records import row_format


@dataclass(frozen=True)
class Sequence:
    """Tokens (T,) int32 and `trained` (T,) bool: whether the model is taught to say that token. `where` is file:line."""

    tokens: np.ndarray
    trained: np.ndarray
    where: str = ""

    def __len__(self):
        return len(self.tokens)


def prompt_tokens(tokenizer, messages, where="", **template):
    """The token ids of a conversation that waits for the assistant's answer."""
    text = render(tokenizer, messages, where, add_generation_prompt=True, **template)
    return tokenizer.encode(text, add_special_tokens=False)


def encode_row(tokenizer, row, where="", mask_prompt=False):
    """The sequences of one row of any of the three formats.

    `mask_prompt` marks only answers (and completions); without it every token is marked, once. Text rows are marked whole.
    Raises LabError, at `where`, for a dialogue that the template does not show as it stands.
    """
    kind = row_format(row)
    if kind == "text":
        return [_text(tokenizer, row["text"], where)]
    if kind == "completion":
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
    else:
        turns = [_turn(turn) for turn in row["messages"]]
    refuse_marks(tokenizer, turns, where)
    template = {"tools": row["tools"]} if row.get("tools") else {}
    try:
        return _dialogue(tokenizer, turns, where, mask_prompt, template)
    except LabError:
        objects = [_turn(turn, parsed=False) for turn in row["messages"]] if kind == "messages" else turns
        if objects == turns:
            raise
    return _dialogue(tokenizer, objects, where, mask_prompt, template)


def _text(tokenizer, text, where):
    """A text as the model will read it: the tokenizer's own special tokens around it, and one end token."""
    tokens = tokenizer.encode(text)
    if tokens[-1] not in end_tokens(tokenizer):
        tokens = [*tokens, tokenizer.eos_token_id]
    return _sequence(tokens, [True] * len(tokens), where)


def _sequence(tokens, trained, where):
    return Sequence(np.asarray(tokens, dtype=np.int32), np.asarray(trained, dtype=bool), where)


def _turn(turn, parsed=True):
    """A turn as templates want it: content a string, and a tool call's arguments an object (`parsed`).

    OpenAI's form has null content and arguments as a string of JSON, which most templates would write as JSON once more;
    a few want the string.
    """
    turn = {**turn, "content": turn.get("content") or ""}
    if parsed and turn.get("tool_calls"):
        turn["tool_calls"] = [_parsed(call) for call in turn["tool_calls"]]
    return turn


def _parsed(call):
    function = call.get("function", call)
    if not isinstance(function.get("arguments"), str):
        return call
    try:
        function = {**function, "arguments": json.loads(function["arguments"])}
    except json.JSONDecodeError:
        return call
    return {**call, "function": function} if "function" in call else function


@lru_cache(maxsize=8)
def _marks(tokenizer, chat_template):
    return answers.turn_marks(tokenizer)


def refuse_marks(tokenizer, turns, where):
    """Raise LabError where a turn's content would be read as the end of that turn, or the beginning of another."""
    for place, turn in enumerate(turns, 1):
        for mark in _marks(tokenizer, tokenizer.chat_template):
            if mark in turn["content"]:
                raise LabError(
                    f"{where}: turn {place} ({turn['role']}) holds {mark}, which the tokenizer reads as the end or the "
                    "beginning of a turn; reword it"
                )


def _dialogue(tokenizer, turns, where, mask_prompt, template):
    sequences, shown, before = [], "", 0
    for place in (place for place, turn in enumerate(turns) if turn["role"] == "assistant"):
        prompt, answer = answers.exchange(tokenizer, turns[: place + 1], where, template)
        head = tokenizer.encode(prompt, add_special_tokens=False)
        tokens = head + _answer_tokens(tokenizer, prompt, head, answer, where)
        known = []
        if sequences and sequences[-1].tokens.tolist() == tokens[: len(sequences[-1])]:
            known = sequences.pop().trained.tolist()  # the history is a prefix: one sequence holds both answers
        elif sequences:  # what an earlier sequence has taught is context here
            history = answers.history(tokenizer, turns[: before + 1], where, template)
            known = [False] * answers.common_length(tokenizer.encode(history, add_special_tokens=False), head)
        asked = [not mask_prompt] * (len(head) - len(known))
        trained = known + asked + [True] * (len(tokens) - len(head))
        sequences.append(_sequence(tokens, trained, where))
        shown, before = shown + prompt + answer, place + 1
    answers.check_all_shown(turns[:before], template.get("tools"), shown, where)
    return sequences


def _answer_tokens(tokenizer, prompt, head, answer, where):
    """The answer's tokens as they follow `head`, the prompt's own, with an end token.

    Where a merge would swallow the boundary the answer is tokenized alone, for generation starts at the boundary too.
    """
    joint = tokenizer.encode(prompt + answer, add_special_tokens=False)
    tokens = joint[len(head) :]
    if joint[: len(head)] != head:
        tokens = tokenizer.encode(answer, add_special_tokens=False)
        if tokenizer.decode(head + tokens) != tokenizer.decode(joint):
            raise LabError(f"{where}: the tokenizer cannot split the answer from its prompt; leave the row out")
    return tokens if tokens and tokens[-1] in end_tokens(tokenizer) else [*tokens, tokenizer.eos_token_id]
