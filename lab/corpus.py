"""A table of questions and answers, or of texts, as rows in train, valid and test: cleaned, without duplicates, by group.

It streams: cleaned rows wait in an unnamed temporary file, and of each only hashes and numbers stay in memory (200 to 300
bytes, twice that while near duplicates are looked for, and then 8 more for each fifth letter of the question or text). The
first of several equal rows is the one that stays.
"""

import hashlib
import json
import math
from array import array
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from pathlib import Path
from tempfile import TemporaryFile

from lab.cli import LabError
from lab.records import nfc
from lab.splits import Split, group_hash
from lab.tables import as_text, read_table

REASONS = {  # why a row is dropped, in the order in which it is looked for
    "blank": "a blank line",
    "empty": "nothing in a cell that is needed, before cleaning or after it",
    "too_long": "longer than --max-length",
    "too_short": "shorter than --min-length",
    "garbled": "it holds U+FFFD, what broken characters become",
    "duplicate": "the same as a row before it, but for case and spaces",
    "conflict": "the same question as in a row before it, with another answer",
    "near_duplicate": "nearly the question (or text) of a row before it, with the same answer",
}
SHOWN = 80  # characters of a dropped row in the list
UNCLEANED = 10  # times --max-length: what is longer is not even cleaned
LARGE = 0.5  # a group with so large a share of the rows is told of
KEPT_KEYS = ("messages", "text", "prompt", "completion", "tools", "accept")
encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. With `answer` a row becomes messages; `classes`: its answer is a class, not a fact."""

    asked: str
    answer: str | None = None
    group: str | None = None
    labels: tuple = ()
    classes: bool = False

    def __post_init__(self):
        if clash := [name for name in self.labels if name in KEPT_KEYS]:
            raise LabError(f"--label-column {clash[0]}: a row has a key of that name; rename the column")

    def names(self):
        """The columns to read: asked, then answer and group where there are, then labels."""
        return [name for name in (self.asked, self.answer, self.group, *self.labels) if name]


@dataclass
class Corpus:
    """Rows that were kept: their JSON lines in `file`, and per row, in arrays of one length, where and what they are."""

    file: object
    log: object
    offsets: array = field(default_factory=lambda: array("Q"))
    numbers: array = field(default_factory=lambda: array("Q"))  # line in the table
    groups: array = field(default_factory=lambda: array("Q"))
    answers: array = field(default_factory=lambda: array("Q"))  # hash of what must agree in a duplicate
    seen: dict = field(default_factory=dict)  # hash of the question or text -> row
    read: int = 0
    end: int = 0
    dropped: dict = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    out: set = field(default_factory=set)  # rows that were kept first and are near duplicates

    def add(self, number, key, answer, group, line):
        """Keep a row, by its JSON line."""
        self.seen[key] = len(self.offsets)
        self.offsets.append(self.end)
        self.numbers.append(number)
        self.answers.append(answer)
        self.groups.append(group)
        self.file.write(line)
        self.end += len(line)

    def drop(self, number, reason, text="", first=None):
        """Count and list a row that is dropped; `first` is the row for whose sake it is."""
        self.dropped[reason] += 1
        entry = {"line": number, "reason": reason}
        if first is not None:
            entry["first_line"] = self.numbers[first]
        self.log.write(encode(nfc({**entry, "text": text[:SHOWN]})).encode("utf-8", "replace") + b"\n")

    def lines(self):
        """The JSON lines of the rows, in order."""
        self.file.seek(0)
        return iter(self.file)

    def text(self, row):
        """The question or text of a row, by its number."""
        self.file.seek(self.offsets[row])
        return _asked(self.file.readline())

    def texts(self):
        """The question or text of every row, in order."""
        return map(_asked, self.lines())


def _asked(line):
    row = json.loads(line)
    return row["messages"][0]["content"] if "messages" in row else row["text"]


def folded(text):
    """`text` as two rows are compared by it: case and spaces aside."""
    return " ".join(text.casefold().split())


def key_of(text):
    """The 96-bit hash of what is `folded(text)`."""
    return hashlib.blake2b(folded(text).encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _number(text):
    """The 64-bit hash of what is `folded(text)`."""
    return int.from_bytes(key_of(text)[:8], "big")


def gather(path, columns, cleaner, args, stack):
    """The Corpus of a table: rows cleaned, faulty and exactly equal ones dropped. Its files close with `stack`.

    `args` has encoding, separator, min_length, max_length, seed. Raises LabError for a fault of the table.
    """
    folder = workplace(args.output_dir)
    files = [stack.enter_context(TemporaryFile(dir=folder)) for _ in range(2)]  # noqa: SIM115  (the stack closes them)
    corpus = Corpus(*files)
    grouped = columns.group is not None
    for number, cells in read_table(path, columns.names(), args.encoding, args.separator):
        corpus.read += 1
        if not cells:
            corpus.drop(number, "blank")
            continue
        where = f"{path}:{number}"
        needed = [as_text(cell, where) for cell in cells[: 2 if columns.answer else 1]]
        texts, reason = _fit(needed, cleaner, where, args)
        if reason:
            corpus.drop(number, reason, needed[0])
            continue
        labels = dict(zip(columns.labels, map(_label, cells[len(needed) + grouped :]), strict=True))
        key = key_of(texts[0])
        deciding = texts[1] if columns.answer else encode(labels) if labels else ""
        answer = _number(deciding)
        if (first := corpus.seen.get(key)) is not None:
            corpus.drop(number, "duplicate" if corpus.answers[first] == answer else "conflict", needed[0], first)
            continue
        name = nfc(as_text(cells[len(needed)], where).strip()) if grouped else ""
        if not name:  # what it answers, or itself
            own = grouped or columns.classes or not columns.answer
            name = f"row {key.hex()}" if own else f"answer {answer}"
        corpus.add(number, key, answer, group_hash(args.seed, name), _line(texts, labels))
    return corpus


def workplace(folder):
    """Where temporary files go: `folder`, or the nearest above it that is there."""
    folder = Path(folder).absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _fit(needed, cleaner, where, args):
    """(cleaned texts, None) or (None, the key of REASONS for which a row is dropped)."""
    if not all(needed):
        return None, "empty"
    if sum(map(len, needed)) > UNCLEANED * args.max_length:
        return None, "too_long"
    texts = [cleaner(text, where) for text in needed]
    if not all(texts):
        return None, "empty"
    if sum(map(len, texts)) > args.max_length:
        return None, "too_long"
    if len(texts[0]) < args.min_length:
        return None, "too_short"
    return texts, "garbled" if "\ufffd" in texts[0] or "\ufffd" in texts[-1] else None


def _label(value):
    """A label as JSON holds it: text stripped, what is no number null, dates as text, in lists and objects too."""
    if isinstance(value, str):
        return nfc(value.strip())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {nfc(str(key)): _label(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_label(item) for item in value]
    return value if isinstance(value, (int, type(None))) else str(value)


def _line(texts, labels):
    """The row's JSON line: what `encode` makes of it, in a fifth of the time."""
    said = [encode_basestring(text) for text in texts]
    more = f", {encode(labels)[1:]}" if labels else "}"
    if len(said) == 1:
        return f'{{"text": {said[0]}{more}\n'.encode()
    turns = f'{{"role": "user", "content": {said[0]}}}, {{"role": "assistant", "content": {said[1]}}}'
    return f'{{"messages": [{turns}]{more}\n'.encode()


def split_of(corpus, path, args):
    """The Split of the rows that are left. Raises LabError where they are too few, or one group."""
    groups = array("Q", (group for row, group in enumerate(corpus.groups) if row not in corpus.out))
    if len(groups) < 2:
        gone = (
            ", ".join(f"{count} {reason}" for reason, count in corpus.dropped.items() if count) or "none dropped"
        )
        raise LabError(
            f"{path}: {len(groups)} of {corpus.read} rows left ({gone}); training and validation need two different rows"
        )
    split = Split(groups, args.valid_share, args.test_share)
    if len(split.distinct) < 2 and args.valid_share + args.test_share > 0:
        raise LabError(
            f"{path}: all {len(groups)} rows are one group, which cannot be split; name another --group-column, "
            "a class with --text-column instead of --question-column, or give --valid-share 0 --test-share 0"
        )
    if (share := split.sizes.max() / len(groups)) > LARGE and len(split.distinct) > 1:
        print(f"warning: one group holds {share:.0%} of the rows, so the shares of the parts cannot be kept")
    return split
