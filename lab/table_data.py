"""A table as rows in train, valid and test, with general rows mixed in: lab/corpus streamed into its files."""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

from lab.cleaning import Cleaner
from lab.cli import LabError, remove_summary, write_atomically, written_atomically
from lab.corpus import Columns, encode, gather, split_of
from lab.korean import comparable
from lab.near_rows import drop_near
from lab.splits import PARTS

RECALL_LETTERS, RECALL_ROWS = 40, 200  # answers short enough to be asked for literally, and how many of them


def prepare(args):
    """Write the parts of `args.input` to `args.output_dir`; returns (results for the summary, inputs).

    Raises LabError for a fault of the table before anything is written.
    """
    asked = args.question_column or args.text_column
    columns = Columns(
        asked, args.answer_column, args.group_column, tuple(args.label_column), classes=bool(args.text_column)
    )
    if (args.replay or args.general_rows) and not columns.answer:
        raise LabError("--replay, --general-rows: general rows are dialogues; name an --answer-column")
    cleaner = Cleaner(links=args.links == "keep")
    with ExitStack() as files:
        corpus, linked = kept(args, columns, cleaner, files)
        split = split_of(corpus, args.input, args)
        counts = part_counts(corpus, split)
        mixed = general_rows(args, corpus, counts)
        remove_summary(args.output_dir)
        recall = write_files(args, corpus, split, counts, mixed, files)
        examples = first_dropped(corpus)
    results = {
        **{"rows": corpus.read, "kept": sum(counts.values()), "groups": len(split.distinct), "linked": linked},
        **{name: counts[name] + len(mixed.get(name, ())) for name in PARTS},
        **{"recall": recall, "replay": len(mixed["train"])},
        **{"replay_source": mixed["source"], "replayed_facts": mixed["facts"]},
        **{"dropped": corpus.dropped, "dropped_examples": examples, "cleaning": cleaner.results()},
    }
    return results, [args.input, *([args.general] if mixed["train"] else [])]


def kept(args, columns, cleaner, files):
    """(the Corpus of the rows that stay, how many near pairs were put into one group)."""
    try:
        corpus = gather(args.input, columns, cleaner, args, files)
        return corpus, drop_near(corpus, columns, args.keep_near_duplicates)
    except OSError as error:  # of the temporary files; the table's own are LabErrors
        raise LabError(
            f"{args.output_dir}: cannot write there ({error.strerror}); free the disk or choose another folder"
        ) from error


def part_counts(corpus, split):
    """{part: rows of the table in it}."""
    counts = dict.fromkeys(PARTS, 0)
    for row, group in enumerate(corpus.groups):
        if row not in corpus.out:
            counts[PARTS[split.part(group)]] += 1
    return counts


def general_rows(args, corpus, counts):
    """{"train": [Turn], "valid": [Turn], "facts", "source"}: general rows whose questions the table does not ask.

    Validation has the share of them that training has, so that it goes on watching the table.
    """
    from lab import general, mixing

    number = mixing.wanted(args, counts["train"])
    if not number:
        return {"train": [], "valid": [], "facts": [], "source": "none"}
    world = general.load_facts(args.general)
    asked = {
        hash(comparable(text)) for text in corpus.texts()
    }  # a question in valid or test, too, but for its marks
    mixed = mixing.general_rows(
        world, number, args.seed, args.replay_file, lambda text: hash(comparable(text)) in asked
    )
    watched = round(counts["valid"] * number / max(1, counts["train"]))
    return {**vars(mixed), "valid": mixed.valid[:watched]}


def write_files(args, corpus, split, counts, mixed, files):
    """Write every file but the report; returns how many rows recall.jsonl has."""
    from lab.dialogues import messages
    from lab.mixing import recall_rows

    folder = args.output_dir
    wanted = [part for part in PARTS if counts[part] or mixed.get(part)]
    with ExitStack() as stack:
        parts = Parts(folder, wanted, stack)
        recall = write_parts(corpus, split, parts)
        for part in ("train", "valid"):
            for turn in mixed[part]:
                parts.write(part, encode(messages(turn)).encode() + b"\n")
        dropped = stack.enter_context(written_atomically(folder / "dropped.jsonl"))
        corpus.log.seek(0)
        shutil.copyfileobj(corpus.log, dropped)
    recall += recall_rows(mixed["valid"]) if recall else []
    if recall:
        write_atomically(folder / "recall.jsonl", "".join(encode(row) + "\n" for row in recall))
    for name in {*PARTS, "recall"} - {*wanted, *(["recall"] if recall else [])}:
        (folder / f"{name}.jsonl").unlink(missing_ok=True)  # an earlier run's
    return len(recall)


class Parts:
    """The files of train, valid and test while they are written; they take their names together at the end."""

    def __init__(self, folder, names, stack):
        self.counts = dict.fromkeys(PARTS, 0)
        self._files = {
            name: stack.enter_context(written_atomically(Path(folder) / f"{name}.jsonl")) for name in names
        }

    def write(self, part, line):
        """Write a row's JSON line (bytes with the line's end) to a part."""
        self.counts[part] += 1
        self._files[part].write(line)


def write_parts(corpus, split, parts):
    """Write every row to its part; returns rows of valid that recall can ask for, with "accept"."""
    recall = []
    for row, line in enumerate(corpus.lines()):
        if row in corpus.out:
            continue
        part = PARTS[split.part(corpus.groups[row])]
        parts.write(part, line)
        if part == "valid" and len(recall) < RECALL_ROWS and line.startswith(b'{"messages"'):
            messages = json.loads(line)["messages"]
            if len(messages[-1]["content"]) <= RECALL_LETTERS:
                recall.append({"messages": messages, "accept": [messages[-1]["content"]]})
    return recall


def first_dropped(corpus):
    """{reason: the first row that was dropped for it}."""
    corpus.log.seek(0)
    found, reasons = {}, sum(map(bool, corpus.dropped.values()))
    for line in corpus.log:
        row = json.loads(line)
        found.setdefault(row.pop("reason"), row)
        if len(found) == reasons:
            break
    return found
