"""What travels with a model's weights (tokenizer, template, generation settings), checked before any work."""

import json

from lab import checkpoints
from lab.cli import LabError, read_json
from lab.headers import LARGEST, shown


def check(carried, folder):
    """{name: content} of the JSON files and the chat template among them.

    Raises LabError for a missing tokenizer, for JSON files that are none, and where a file asks for remote code.
    """
    contents = {}
    if not any(file.name in ("tokenizer.json", "tokenizer.model", "vocab.json") for file in carried):
        raise LabError(f"{folder}: no tokenizer.json in it; {checkpoints.AGAIN}")
    for file in (file for file in carried if file.suffix == ".json"):
        content = read_json(file, checkpoints.AGAIN)
        if not isinstance(content, dict):
            raise LabError(f"{file}:1: not a JSON object; {checkpoints.AGAIN}")
        # transformers takes a bare list for a tokenizer's, too (tokenization_auto.py), and trips over anything else.
        remote = content.get("auto_map", {}) if file.name == "tokenizer_config.json" else {}
        if not isinstance(remote, dict) or "AutoTokenizer" in remote:
            what = "its auto_map asks for a tokenizer in Python code that comes with the checkpoint"
            raise LabError(f"{file}: {what}; take that entry out, or use a checkpoint with a stock tokenizer")
        if file.name == "generation_config.json":
            check_ids(content, file)
            check_text(content, file)
        contents[file.name] = content
    template = folder / "chat_template.jinja"
    if template in carried:
        try:
            contents[template.name] = template.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise LabError(f"{template}: not UTF-8 (byte {error.start}); {checkpoints.AGAIN}") from error
    return contents


def check_text(content, path):
    """Raise LabError where the content of a JSON file could not be written again."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise LabError(f"{path}: holds half a character ({error.reason}); mend the file") from error


def check_ids(content, path):
    """Raise LabError where the special tokens of a config are no token ids."""
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = content.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(number) is int and 0 <= number < LARGEST for number in ids):
            raise LabError(
                f"{path}: {key} is {shown(repr(value))}, not a token id or a list of them; mend the file"
            )
