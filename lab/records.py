"""JSONL in and out. Every fault is named by file and line, nothing is skipped in silence."""

import json
import re
import unicodedata
from pathlib import Path

from lab.cli import LabError, write_atomically

ROLES = ("system", "user", "assistant", "tool")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # JSON may hold what UTF-8, and so a tokenizer, cannot
LISTED = 10  # bad rows that one error names; enough to see what they have in common


def nfc(value):
    """`value` with every string in it in Unicode NFC."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, list):
        return [nfc(item) for item in value]
    if isinstance(value, dict):
        return {key: nfc(item) for key, item in value.items()}
    return value


def read_jsonl(path):
    """The rows of a JSONL file as [(line number from 1, object)], strings in NFC.

    Raises LabError, naming file and line, for a missing or empty file, a blank line, a line that is not UTF-8 or not a
    JSON object.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise LabError(f"{path}: cannot read ({error.strerror}); check the path") from error
    if not lines:
        raise LabError(f"{path}:1: empty file; it needs at least one JSON object")
    return [(number, _object(path, number, line)) for number, line in enumerate(lines, 1)]


def read_lines(path):
    """The lines of a text file, in NFC and without their ends.

    Raises LabError, naming file and line, for a file that is missing, empty or not UTF-8.
    """
    try:
        text = nfc(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise LabError(f"{path}: cannot read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise LabError(f"{path}:{line}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    if not text:
        raise LabError(f"{path}:1: empty file; it needs at least one line")
    lines = text.removesuffix("\n").split("\n")  # splitlines would count a line at every U+2028
    return [line.removesuffix("\r") for line in lines]


def _object(path, number, line):
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise LabError(f"{path}:{number}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    return nfc(json_object(path, number, text))


def json_object(path, number, line):
    """The object in one line of a JSONL file, as it stands there. Raises LabError where there is none."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        what = (
            "blank line; remove it"
            if not line.strip()
            else f"not valid JSON ({error.msg}); mend or remove the line"
        )
        raise LabError(f"{path}:{number}: {what}") from error
    except ValueError as error:  # a number of thousands of digits
        raise LabError(f"{path}:{number}: not valid JSON ({error}); mend or remove the line") from error
    except RecursionError as error:
        raise LabError(f"{path}:{number}: brackets within brackets without end; remove the line") from error
    if "\\u" in line and SURROGATE.search(line) and not _is_text(value):
        raise LabError(f"{path}:{number}: half a character (a lone \\ud800-\\udfff escape); mend the line")
    if not isinstance(value, dict):
        raise LabError(f"{path}:{number}: expected a JSON object, found {type(value).__name__}; mend the line")
    return value


def _is_text(value):
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def to_jsonl(rows):
    """The text of a JSONL file with `rows`: one object a line, NFC, Korean as it is."""
    return "".join(json.dumps(nfc(row), ensure_ascii=False) + "\n" for row in rows)


def write_jsonl(path, rows):
    """Write `rows` to `path`, atomically."""
    write_atomically(path, to_jsonl(rows))


def training_rows(path):
    """The rows of a training file as [(line, row)], each checked to be one of the three formats that can be trained.

    {"text": str}, {"messages": [{"role", "content"}, ...]} with an assistant turn, or {"prompt": str, "completion": str};
    the last two may hold "tools". Raises LabError that names every bad row, see `refuse`.
    """
    rows = read_jsonl(path)
    found = ((number, row_problem(row)) for number, row in rows)
    refuse([f"{path}:{number}: {problem}" for number, problem in found if problem])
    return rows


def refuse(problems):
    """Raise one LabError of `problems`, each with its file:line; the first LISTED of them, and how many there are."""
    if problems:
        more = len(problems) - LISTED
        raise LabError("; ".join(problems[:LISTED]) + (f"; and {more} more such rows" if more > 0 else ""))


def row_format(row):
    """ "completion", "messages" or "text": what a row with several of these keys is read as, in mlx-lm's order."""
    if "prompt" in row and "completion" in row:
        return "completion"
    return "messages" if "messages" in row else "text"


def row_problem(row):
    """What keeps `row` from being trained, in words, or None."""
    kind = row_format(row)
    if kind == "messages":
        return _messages_problem(row["messages"]) or _tools_problem(row.get("tools"))
    if kind == "text" and "text" not in row and ("prompt" in row or "completion" in row):
        return f'no "{"completion" if "prompt" in row else "prompt"}"; give both'
    for key in ("prompt", "completion") if kind == "completion" else ("text",):
        if key not in row:
            return f'no "{key}"; a row is {{"text"}}, {{"messages"}} or {{"prompt", "completion"}}'
        if not _filled(row[key]):
            return f'"{key}" is empty or not a string; fill it in or remove the row'
    return _tools_problem(row.get("tools"))


def _messages_problem(messages):
    if problem := turns_problem(messages):
        return problem
    if not any(turn["role"] == "assistant" for turn in messages):
        return "no assistant turn, so nothing to learn; add the answer"
    return None


def turns_problem(messages):
    """What is wrong with a dialogue's turns, whether it is to be trained or answered, in words, or None."""
    if not isinstance(messages, list) or not messages:
        return '"messages" is not a list of turns; write [{"role": "user", "content": ...}, ...]'
    for place, turn in enumerate(messages, 1):
        if problem := _turn_problem(turn):
            return f"turn {place} {problem}"
    return None


def _turn_problem(turn):
    if not isinstance(turn, dict) or turn.get("role") not in ROLES:
        return f"has no role out of {', '.join(ROLES)}; mend it"
    content, calls = turn.get("content"), turn.get("tool_calls")
    if calls and (turn["role"] != "assistant" or not isinstance(calls, list) or not all(map(_is_call, calls))):
        return 'has tool_calls that are not an assistant\'s [{"function": {"name", "arguments"}}, ...]; mend them'
    if content is not None and not isinstance(content, str):
        return f"has content that is not a string but {type(content).__name__}; write the text alone"
    may_be_empty = calls or turn["role"] in ("system", "tool")
    return None if may_be_empty or _filled(content) else "has no content; fill it in or remove the row"


def _is_call(call):
    function = call.get("function", call) if isinstance(call, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _tools_problem(tools):
    if not tools or (isinstance(tools, list) and all(map(_is_call, tools))):
        return None
    return '"tools" is not a list of {"type": "function", "function": {"name", ...}}; mend it'


def _filled(value):
    return isinstance(value, str) and bool(value.strip())
