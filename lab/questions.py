"""Questions out of a file, answers into one: in order, in parts that a kill does not take away."""

import hashlib
import json
import os
from pathlib import Path

from lab.cli import LabError, read_json, sha256
from lab.durable import sync
from lab.records import read_jsonl, read_lines, refuse, to_jsonl, turns_problem
from lab.stages import ADAPTER_FILES

KEYS = ("messages", "prompt", "question")


def read_questions(path):
    """[(place, messages)] of a file: JSONL with {"messages"}, {"prompt"} or {"question"}, else one question a line.

    `place` is file:line. Raises LabError that names every line that cannot be asked.
    """
    path = Path(path)
    if path.suffix in (".jsonl", ".json"):
        rows = read_jsonl(path)
    else:
        rows = [(number, {"question": line}) for number, line in enumerate(read_lines(path), 1)]
    refuse([f"{path}:{number}: {problem}" for number, row in rows if (problem := _problem(row))])
    return [(f"{path}:{number}", _messages(row)) for number, row in rows]


def _problem(row):
    """What keeps a row from being asked, in words, or None."""
    found = [key for key in KEYS if key in row]
    if len(found) != 1:
        names = " and ".join(f'"{key}"' for key in found) or f"none of {', '.join(KEYS)}"
        return f"{names}; a row holds one question"
    value = row[found[0]]
    if found[0] == "messages":
        problem = turns_problem(value)
        return problem or (
            None if value[-1]["role"] == "user" else "the last turn is not the user's; leave it out"
        )
    if not isinstance(value, str) or not value.strip():
        return "no question; write one or remove the line"
    return None


def _messages(row):
    if "messages" in row:
        return [{**turn, "content": turn.get("content") or ""} for turn in row["messages"]]
    return [{"role": "user", "content": row.get("prompt", row.get("question"))}]


def answer_row(place, messages, text, ended):
    """What is written of an answer: the line it stands for, the question, the text, whether the model ended it."""
    alone = len(messages) == 1 and messages[0]["role"] == "user"
    asked = {"prompt": messages[0]["content"]} if alone else {"messages": messages}
    return {"line": int(place.rpartition(":")[2]), **asked, "answer": text, "ended": ended}


def run_key(args, adapter, settings):
    """What decides the answers, in a line: the contents of questions, model and `adapter`, and the settings."""
    from lab.fingerprint import of_the_model  # imports mlx

    files = [args.file, *(adapter / name for name in ADAPTER_FILES if adapter)]
    content = {"files": [sha256(file) for file in files], **of_the_model(args.model), **settings}
    content["system"] = args.system
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_finished(output, summary, key):
    """Whether `output` is there whole, and its summary says that it is of the run that `key` stands for."""
    return output.is_file() and summary.is_file() and read_json(summary, "--overwrite").get("run") == key


class Partial:
    """OUTPUT.partial: the answers so far of a run that `key` stands for; a first line holds the key."""

    def __init__(self, output, key):
        self.path, self._key = Path(f"{output}.partial"), key

    def begin(self, resume, overwrite):
        """The answers to go on behind: those that are there with `resume`, if they are of this run; else none.

        Raises LabError where there are others and no `overwrite`.
        """
        found = self._read() if resume or not overwrite else []
        if not found or (overwrite and found[0] != {"run": self._key}):
            self.remove()
            self._append({"run": self._key})
            return []
        if not resume:
            raise LabError(
                f"{self.path}: answers of a run that was stopped; --resume goes on, --overwrite begins anew"
            )
        if found[0] != {"run": self._key}:
            what = "answers to other questions, or by another model or settings"
            raise LabError(f"{self.path}: {what}; --overwrite begins anew")
        return found[1:]

    def _read(self):
        """The rows of the file, the key's first; a line that a kill cut is taken away."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        if len(whole) < len(lines):
            os.truncate(self.path, sum(map(len, whole)))
        try:
            return [json.loads(line) for line in whole]
        except ValueError as error:
            raise LabError(f"{self.path}: not what this command writes; remove it") from error

    def add(self, rows):
        """Keep `rows`, for good when this returns."""
        self._append(*rows)

    def _append(self, *rows):
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.write(to_jsonl(rows).encode())
                file.flush()
                sync(file.fileno())
        except OSError as error:
            remedy = "free the disk, then --resume"
            raise LabError(f"{self.path}: cannot write ({error.strerror}); {remedy}") from error

    def remove(self):
        """The answers stand elsewhere now."""
        self.path.unlink(missing_ok=True)
