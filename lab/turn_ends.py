"""The end tokens of a converted model: those that its files name, and those its chat template closes a turn with.

Stock mlx-lm stops at the eos ids of generation_config.json, else at config.json's, and at the tokenizer's own; it reads no
template (source: mlx_lm 0.32.2, utils.load_config, tokenizer_utils.TokenizerWrapper). Plain Python: no MLX is loaded, and
no tokenizer, which takes a second.
"""

from contextlib import suppress
from dataclasses import dataclass, replace

from lab import template_sandbox
from lab.cli import write_json
from lab.headers import shown

GENERATION = "generation_config.json"
STAND_IN = "answer-stands-here"
LONGEST_ID = 10  # digits of a token's id; Python refuses to read thousands
# What to stop at by NAVER's model cards of Think-14B and Text-Instruct: an answer's end, and a tool call's.
STOPS = ("<|endofturn|>", "<|stop|>")
NO_TEMPLATE = (
    "no chat template found: mlx-lm completes text only, or ends at once; if the model has one, put it beside the source's "
    "config.json as chat_template.jinja"
)
BLOCK_END, THOUGHTS = "<|im_end|>", "assistant/think"  # in those, a block of thoughts ends as every block does
TOOL = {"name": "call", "description": "A call.", "parameters": {"type": "object", "properties": {}}}


@dataclass(frozen=True)
class Ends:
    """`ids` end an answer; `said`: what was added or left out, as sentences; `generation`: generation_config.json's
    content, or None where the source's file stays as it is, to the byte, or there is nothing to write.
    """

    ids: tuple
    said: tuple
    generation: dict | None


def settled(model, files):
    """The TextModel with its `ends`, and config.json's eos_token_id in line with them.

    `files` is {name: content} of what travels with the weights, as carried_files.check returns it.
    """
    ends = find(files, listed(model.config.get("eos_token_id")), model.config["vocab_size"])
    config = {key: value for key, value in model.config.items() if key != "eos_token_id"}
    if ends.ids:
        config["eos_token_id"] = ends.ids[0] if len(ends.ids) == 1 else list(ends.ids)
    return replace(model, config=config, ends=ends)


def find(files, from_config, vocabulary):
    """The Ends: first generation_config.json's, then config.json's (`from_config`), then the chat template's."""
    source, tokens = files.get(GENERATION) or {}, added_tokens(files)
    names = {number: shown(text) for text, number in tokens.items()}
    stated, said = listed(source.get("eos_token_id")), []
    closing, trouble = closing_tokens(files, tokens)
    reasons = dict.fromkeys(stated, None)
    for number in from_config:
        # Configurations that transformers fills up name token 2, which may be any letter.
        if number not in reasons and tokens and number not in names and number < vocabulary:
            said.append(f"{number} of config.json left out: an ordinary token, no special one")
        elif number not in reasons:
            reasons[number] = f"config.json names it, {GENERATION} does not" if stated else None
    for text in closing:
        reasons.setdefault(tokens[text], "the chat template closes a turn with it")
    beyond = [number for number in reasons if number >= vocabulary]
    said += [
        f"{_name(number, names)} left out: no token of the model, which has {vocabulary}" for number in beyond
    ]
    ids = tuple(number for number in reasons if number < vocabulary)
    said += [f"{_name(number, names)} added: {reasons[number]}" for number in ids if reasons[number]]
    said += [trouble] if trouble else []
    said += [] if ids else ["none is known: an answer ends at its limit of tokens"]
    said += [] if has_template(files) else [NO_TEMPLATE]
    same = ids == tuple(stated) or not (ids or stated)
    return Ends(ids, tuple(said), None if same else {**source, "eos_token_id": list(ids)})


def kept(paths, ends):
    """Those of the source's files that go along as they are."""
    return [path for path in paths if path.name != GENERATION or ends.generation is None]


def write(ends, folder):
    """Write generation_config.json into `folder`, where it is to be another one than the source's."""
    if ends.generation is not None:
        write_json(folder / GENERATION, ends.generation)


def listed(ids):
    """A config's token ids as a list without repeats: None and a single one, too."""
    return list(dict.fromkeys(ids if isinstance(ids, list) else [] if ids is None else [ids]))


def _name(number, names):
    return f"{names[number]} ({number})" if number in names else str(number)


def added_tokens(files):
    """{text: id} of the tokens that stand beside a tokenizer's ordinary vocabulary."""
    found = list((files.get("added_tokens.json") or {}).items())
    decoder = (files.get("tokenizer_config.json") or {}).get("added_tokens_decoder")
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(token, dict) and number.isdecimal() and len(number) <= LONGEST_ID:
            found.append((token.get("content"), int(number)))
    tokens = (files.get("tokenizer.json") or {}).get("added_tokens")
    for token in tokens if isinstance(tokens, list) else ():
        if isinstance(token, dict):
            found.append((token.get("content"), token.get("id")))
    sound = (str, int)
    return {text: number for text, number in found if (type(text), type(number)) == sound and text}


def has_template(files):
    """Whether mlx-lm finds a chat template: of whatever name, or one of its own by chat_template_type. Base models have none."""
    config = files.get("tokenizer_config.json") or {}
    return any((chat_template(files), config.get("chat_template"), config.get("chat_template_type")))


def chat_template(files):
    """The checkpoint's chat template, or None; of several the default one."""
    found = files.get("chat_template.jinja") or (files.get("tokenizer_config.json") or {}).get("chat_template")
    if isinstance(found, list):
        named = [part for part in found if isinstance(part, dict) and part.get("name") == "default"]
        found = named[-1].get("template") if named else None
    return found if isinstance(found, str) else None


def closing_tokens(files, tokens):
    """(texts of the tokens that the chat template closes an answer and a tool call with, what went wrong or None)."""
    template = chat_template(files)
    if not template or not tokens:
        return [], None
    try:
        with template_sandbox.limited():
            found = closings(template_sandbox.compiled(template, special_names(files)), tokens)
        return named_stops(found, template, tokens), None
    except (Exception, template_sandbox.TooSlow) as error:  # it can fail in ways without end
        reason = shown(next(iter(str(error).splitlines()), type(error).__name__))
        return [], f"the chat template does not say how a turn ends ({reason})"


def named_stops(found, template, tokens):
    """`found` with STOPS where the template writes the first of them, after whatever turns that is."""
    if STOPS[0] not in template:
        return found
    kept = [text for text in found if text != BLOCK_END or THOUGHTS not in template]
    return list(dict.fromkeys([*kept, *(text for text in STOPS if text in tokens)]))


def closings(render, tokens):
    """The texts of the tokens that a template closes an answer and a tool call with."""
    asked = [{"role": "user", "content": "?"}]
    prompt = render(asked, add_generation_prompt=True) + render(asked)
    found = [closing_of_answer(after_stand_in(render, answers()), prompt, tokens)]
    with suppress(Exception):  # it means no more than a template that knows no tools
        found.append(closing_of_call(after_stand_in(render, calls()), prompt, tokens))
    return [text for text in dict.fromkeys(found) if text]


def special_names(files):
    """{bos_token: its text, ...} of tokenizer_config.json, which templates write."""
    said = files.get("tokenizer_config.json") or {}
    texts = {key: said.get(f"{key}_token") for key in ("bos", "eos", "unk", "pad")}
    plain = {key: text.get("content") if isinstance(text, dict) else text for key, text in texts.items()}
    return {f"{key}_token": text for key, text in plain.items() if isinstance(text, str)}


def answers():
    """Dialogues that end with an answer, in the ways that templates want them."""
    for content in (STAND_IN, [{"type": "text", "text": STAND_IN}]):
        asked = "?" if content is STAND_IN else [{"type": "text", "text": "?"}]
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": content}]
        yield turns, {}
        yield [{"role": "system", "content": asked}, *turns], {}


def calls():
    """Dialogues that end with the call of a tool."""
    for arguments in ({"x": STAND_IN}, f'{{"x": "{STAND_IN}"}}'):
        call = {"id": "call00000", "type": "function", "function": {"name": "call", "arguments": arguments}}
        turn = {"role": "assistant", "content": "", "tool_calls": [call]}
        tools = {"tools": [{"type": "function", "function": TOOL}]}
        yield [{"role": "user", "content": "?"}, turn], tools


def after_stand_in(render, dialogues):
    """What a template writes after the stand-in of the first of `dialogues` that shows it. Raises where none does."""
    trouble = ValueError("it shows no answer")
    for turns, more in dialogues:
        try:
            _, found, after = render(turns, **more).rpartition(STAND_IN)
        except Exception as error:
            trouble = error
            continue
        if found:
            return after
    raise trouble


def closing_of_answer(after, prompt, tokens):
    """The token that ends an answer, of those in a row right after its text; None where there is none.

    `prompt` is what the template makes of a question: with the beginning of an answer, and without.

    Think-14B writes <|im_end|><|endofturn|>: the first ends its thoughts, too, so that only the second, which
    no prompt has, ends the turn. Phi-4-mini writes <|end|><|endoftext|>, the second behind every dialogue: the first ends it.
    """
    run, rest = [], after.lstrip()
    while text := max((text for text in tokens if rest.startswith(text)), key=len, default=None):
        run.append(text)
        rest = rest[len(text) :]
    own = [text for text in run if text not in prompt]
    return own[-1] if own else next(iter(run), None)


def closing_of_call(after, prompt, tokens):
    """The token at the very end of a tool call's turn, if no prompt has it; None for the end of a part, as </tool_call>."""
    rest = after.rstrip()
    text = max((text for text in tokens if rest.endswith(text)), key=len, default=None)
    return None if text is None or text in prompt or text.startswith("</") else text
