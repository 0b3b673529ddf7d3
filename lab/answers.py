"""What a chat template makes of an answer: the prompt it is generated after, and its text to the end token.

Everything is read off the tokenizer's own template by rendering; nothing is known of any template by name. What cannot
be read off exactly is refused: an answer that the template changes, drops or cuts would otherwise be mis-learnt in silence.
"""

import json
from itertools import takewhile

from jinja2 import TemplateError

from lab.cli import LabError
from lab.turn_ends import STAND_IN, closing_of_answer

THINK, END_OF_THINK = "<think>", "</think>"
THINKING = (
    {"thinking": True},
    {"enable_thinking": True},
)  # the template switches there are that open a think block


def render(tokenizer, messages, where="", **template):
    """The conversation as text, by the tokenizer's template. Raises LabError at `where` for one that it refuses."""
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **template)
    except (TemplateError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise LabError(
            f"{where}: the model's chat template refuses this dialogue ({reason}); mend the turns"
        ) from error


def end_tokens(tokenizer):
    """The ids that end an answer: the tokenizer's end-of-sequence ids, as a set of int."""
    many = getattr(tokenizer, "eos_token_ids", None)
    return set(many) if isinstance(many, (set, list, tuple)) and many else {tokenizer.eos_token_id}


def end_strings(tokenizer):
    """The end tokens as text."""
    return [text for text in tokenizer.convert_ids_to_tokens(sorted(end_tokens(tokenizer))) if text]


def turn_marks(tokenizer):
    """The special tokens, as text, that open or close a turn: those the template writes around a user's turn, and the ends."""
    try:
        shown = render(tokenizer, [{"role": "user", "content": "x"}])
    except LabError:  # a template that wants a system turn, say: then the end tokens alone are known
        return end_strings(tokenizer)
    special = set(tokenizer.encode(shown, add_special_tokens=False)) & set(tokenizer.all_special_ids)
    return sorted({*tokenizer.convert_ids_to_tokens(sorted(special)), *end_strings(tokenizer)})


def turn_ends(tokenizer):
    """The special token, as text, that the template closes an answer with, in a list; none where that cannot be told."""
    if not tokenizer.chat_template:
        return []
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    try:
        closing = _around(tokenizer, turns, "the chat template", {})[1]
        prompt = "".join(render(tokenizer, turns[:1], add_generation_prompt=begun) for begun in (True, False))
    except LabError:
        return []
    found = closing_of_answer(closing, prompt, tokenizer.all_special_tokens)
    return [found] if found else []


def exchange(tokenizer, messages, where, template):
    """(prompt, answer) of the dialogue's last turn as text; `answer` goes on to its end token.

    `answer` lacks the end token where the template writes none.
    """
    turn, rendered = messages[-1], render(tokenizer, messages, where, **template)
    opening, closing = _around(tokenizer, messages, where, template)
    prompt = render(tokenizer, messages[:-1], where, add_generation_prompt=True, **template)
    if rendered.startswith(prompt):
        answer = rendered[len(prompt) :]
    elif rendered.startswith(opening):  # the history opens an answer otherwise than the generation prompt does
        answer = rendered[len(opening) :]
    else:
        raise LabError(f"{where}: the chat template rewrites the turns before an answer; leave the row out")
    if END_OF_THINK in turn["content"] and END_OF_THINK not in answer:
        prompt, answer = _thought(tokenizer, messages, where, closing, template)
    elif _thinks(prompt) and END_OF_THINK not in answer:
        raise LabError(
            f"{where}: the generation prompt opens a think block that the answer does not close; "
            f"start the answer with {THINK}...{END_OF_THINK}"
        )
    opened = prompt[len(opening) :] if prompt.startswith(opening) else ""
    _check_shown(turn, opened + answer, where)
    return prompt, _to_the_end(tokenizer, answer, closing)


def history(tokenizer, messages, where, template):
    """What the template writes before the content of the last turn."""
    return _around(tokenizer, messages, where, template)[0]


def _around(tokenizer, messages, where, template):
    """What the template writes before and after the last turn's content, read off a stand-in for it."""
    stand_in = {"role": messages[-1]["role"], "content": STAND_IN}
    shown = render(tokenizer, [*messages[:-1], stand_in], where, **template)
    opening, found, closing = shown.rpartition(STAND_IN)
    if not found:
        raise LabError(f"{where}: the model's chat template does not show every turn; leave the row out")
    return opening, closing


def _thinks(prompt):
    """Whether a generation prompt leaves a think block open."""
    return prompt.rstrip().endswith(THINK)


def _thought(tokenizer, messages, where, closing, template):
    """(prompt, answer) for an answer with its reasoning, where the template shows the reasoning of no turn.

    The prompt is the template's own that opens a think block; the answer goes on from there.
    """
    content = messages[-1]["content"]
    for switch in ({}, *THINKING):
        prompt = render(tokenizer, messages[:-1], where, add_generation_prompt=True, **{**template, **switch})
        opened = prompt[prompt.rfind(THINK) :]
        if _thinks(prompt) and content.startswith(opened):
            return prompt, content[len(opened) :] + closing
    raise LabError(
        f"{where}: the chat template changes the answer's text (its think block); "
        f"give the answer alone, or start it with {THINK} and a line break"
    )


def _to_the_end(tokenizer, answer, closing):
    """`answer` up to and with the first end token that stands after its content, or whole where there is none."""
    ends = end_strings(tokenizer)
    body = answer[: len(answer) - len(closing)] if answer.endswith(closing) else answer
    tail = answer[len(body) :]
    if found := [tail.find(end) + len(end) for end in ends if end in tail]:
        return body + tail[: min(found)]
    found = [body.rfind(end) + len(end) for end in ends if end in body]  # a tool call is closed in its own way
    return body[: max(found)] if found else answer


def _check_shown(turn, answer, where):
    """Raise LabError for a part of an assistant's turn that the template did not write."""
    calls = [call.get("function", call) for call in turn.get("tool_calls") or ()]
    parts = {"content": [turn["content"]], "tool_calls": [call.get("name") for call in calls]}
    for key in ("reasoning_content", "reasoning", "thinking"):
        parts[key] = [turn.get(key)]
    for key, texts in parts.items():
        if not all(shows(answer, text) for text in texts if text):
            raise LabError(
                f"{where}: the model's chat template changes or drops the answer's {key}; mend the row or leave it out"
            )


def check_all_shown(messages, tools, text, where):
    """Raise LabError for a turn or a tool of the dialogue that is nowhere in `text`, what the template made of it.

    The reasoning of past answers may be dropped: that is what templates do.
    """
    for place, turn in enumerate(messages, 1):
        if not shows(text, turn["content"].rpartition(END_OF_THINK)[2]):
            raise LabError(
                f"{where}: the model's chat template changes or drops turn {place} ({turn['role']}); mend the turns"
            )
    for tool in tools or ():
        name = tool.get("function", tool).get("name", "")
        if not shows(text, name):
            raise LabError(
                f"{where}: the model's chat template does not show the tool {name}; leave tools out or use another model"
            )


def shows(text, part):
    """Whether `part` stands in `text`, however the template trims it or writes it as JSON."""
    escaped = json.dumps(part, ensure_ascii=False)[1:-1]
    return part.strip() in text or _squeezed(part) in _squeezed(text) or _squeezed(escaped) in _squeezed(text)


def _squeezed(text):
    return "".join(text.split())


def common_length(first, second):
    """How many leading items two lists share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
