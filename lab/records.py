"""JSONL in and out. Every fault is named by file and line, nothing is skipped in silence."""

import json
import unicodedata
from pathlib import Path

from lab.cli import LabError, write_atomically

ROLES = ("system", "user", "assistant", "tool")


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


def _object(path, number, line):
    try:
        value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise LabError(f"{path}:{number}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        what = (
            "blank line; remove it"
            if not line.strip()
            else f"not valid JSON ({error.msg}); mend or remove the line"
        )
        raise LabError(f"{path}:{number}: {what}") from error
    if not isinstance(value, dict):
        raise LabError(f"{path}:{number}: expected a JSON object, found {type(value).__name__}; mend the line")
    return nfc(value)


def to_jsonl(rows):
    """The text of a JSONL file with `rows`: one object a line, NFC, Korean as it is."""
    return "".join(json.dumps(nfc(row), ensure_ascii=False) + "\n" for row in rows)


def write_jsonl(path, rows):
    """Write `rows` to `path`, atomically."""
    write_atomically(path, to_jsonl(rows))


def training_rows(path):
    """The rows of a training file as [(line, row)], each checked to be one of the three formats that can be trained.

    {"text": str}, {"messages": [{"role", "content"}, ...]} with an assistant turn, or {"prompt": str, "completion": str}.
    """
    rows = read_jsonl(path)
    for number, row in rows:
        if problem := row_problem(row):
            raise LabError(f"{path}:{number}: {problem}")
    return rows


def row_problem(row):
    """What keeps `row` from being trained, in words, or None."""
    if "messages" in row:
        return _messages_problem(row["messages"])
    keys = ("prompt", "completion") if "prompt" in row or "completion" in row else ("text",)
    for key in keys:
        if key not in row:
            return f'no "{key}"; a row is {{"text"}}, {{"messages"}} or {{"prompt", "completion"}}'
        if not isinstance(row[key], str) or not row[key].strip():
            return f'"{key}" is empty or not a string; fill it in or remove the row'
    return None


def _messages_problem(messages):
    if not isinstance(messages, list) or not messages:
        return '"messages" is not a list of turns; write [{"role": "user", "content": ...}, ...]'
    for place, turn in enumerate(messages, 1):
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            return f"turn {place} has no role out of {', '.join(ROLES)}; mend it"
        if not isinstance(turn.get("content"), str) or (
            not turn["content"].strip() and not turn.get("tool_calls")
        ):
            return f"turn {place} has no content; fill it in or remove the row"
    if not any(turn["role"] == "assistant" for turn in messages):
        return "no assistant turn, so nothing to learn; add the answer"
    return None
