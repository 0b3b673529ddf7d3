"""KMMLU's files, read and checked: CSV with columns by name, every fault named by file and line.

Layout, on the hub and in --data-dir: data/<Subject>-{train,dev,test}.csv with the columns question, answer (1 to 4), A, B,
C, D and, if there, Category and Human Accuracy (a share, or per cent throughout the file).
"""

import csv
import difflib
import io
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab.cli import LabError, read_json
from lab.general import load_yaml
from lab.kmmlu import HAERAE, KMMLU, Item, Task
from lab.records import refuse

SUBJECTS = Path(__file__).with_name("kmmlu_subjects.yaml")
HAERAE_SUBSET, HAERAE_FILE = "haerae-general-knowledge", "general_knowledge"
HAERAE_REPOSITORY = "HAERAE-HUB/HAE_RAE_BENCH"
HAERAE_NAMES = (f"{HAERAE_FILE}.csv", f"{HAERAE_FILE}_test.csv", "test.csv")  # as they may be called, too
ALL = "all"
OPTIONS = ("A", "B", "C", "D")
QUESTION, ANSWER, HUMAN, QUERY = "question", "answer", "Human Accuracy", "query"
IN_A_COPY = "mend it in a copy of the folder and name that with --data-dir"


@dataclass(frozen=True)
class Listing:
    """The subjects of KMMLU: {group: [subject]}, the names of their files where those differ, the hub's repository and the
    commit that is taken, and how many test items all have."""

    repository: str
    revision: str
    groups: dict
    files: dict
    test_items: int

    @property
    def subjects(self):
        return [subject for subjects in self.groups.values() for subject in subjects]

    def file(self, subject, split):
        """The path of a subject's file in the repository."""
        return f"data/{self.files.get(subject, subject)}-{split}.csv"


def listing():
    """The Listing of lab/kmmlu_subjects.yaml."""
    content = load_yaml(SUBJECTS)
    return Listing(**content)


@dataclass(frozen=True)
class Subset:
    """What is asked: `task`, its subjects in order, and {group: [subject]} of the groups that are wholly asked for."""

    task: Task
    subjects: tuple
    groups: dict = field(default_factory=dict)


def choose(names, own=()):
    """The Subset that --subset names: subjects, groups, `all`, whatever their case; `own` are a sample's subjects.

    Raises LabError, with near names, for one that there is not.
    """
    known, words = listing(), [word for name in names for word in name.split(",") if word.strip()]
    groups = {} if own else known.groups
    subjects = list(own or known.subjects)
    if HAERAE_SUBSET in map(_plain, words):
        if len(words) > 1:
            raise LabError(f"--subset {HAERAE_SUBSET}: another benchmark, with five options; ask it alone")
        return Subset(HAERAE, (HAERAE_FILE,))
    if not words:
        raise LabError(f"--subset: no subject named; {_offer((), subjects, groups)}")
    found = []
    for word in words:
        found += _named(word, subjects, groups)
    chosen = tuple(subject for subject in subjects if subject in found)
    return Subset(KMMLU, chosen, {name: part for name, part in groups.items() if set(part) <= set(chosen)})


def _named(word, subjects, groups):
    """The subjects that one word of --subset stands for."""
    if _plain(word) == ALL:
        return subjects
    for name, part in groups.items():
        if _plain(name) == _plain(word):
            return part
    by_name = {_plain(subject): subject for subject in subjects}
    if _plain(word) in by_name:
        return [by_name[_plain(word)]]
    if _plain(word) == "general-knowledge":
        raise LabError(
            f"--subset {word}: KMMLU has no such subject; HAE-RAE has general_knowledge, with five options (chance "
            f"20 %): --subset {HAERAE_SUBSET}"
        )
    names = {_plain(name): name for name in (*subjects, *groups, ALL)}
    near = [names[key] for key in difflib.get_close_matches(_plain(word), names, n=4, cutoff=0.5)]
    raise LabError(f"--subset {word}: no such subject or group; {_offer(near, subjects, groups)}")


def _offer(near, subjects, groups):
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are: {', '.join([ALL, *groups, *subjects])}"


def _plain(name):
    return re.sub(r"[\s_-]+", "-", name.strip().lower())


@dataclass(frozen=True)
class Files:
    """Where a Subset's files lie: `source` in words, {(subject, split): path}, whether it is the lab's own sample."""

    source: str
    paths: dict
    sample: bool = False


def sample_subjects(folder):
    """The subjects of a folder that prepare_kmmlu_sample.py wrote, () for any other."""
    path = Path(folder) / "summary.json"
    summary = read_json(path, "write the sample again") if path.is_file() else {}
    return tuple(summary.get("subjects", ())) if isinstance(summary, dict) and summary.get("sample") else ()


def in_folder(folder, subset, splits):
    """The Files of `subset` in a folder with the hub's layout. Raises LabError that names every missing file."""
    folder = Path(folder)
    if not folder.is_dir():
        raise LabError(f"{folder}: no such folder; give one that holds data/<Subject>-test.csv")
    present = {path.name.lower(): path for place in (folder, folder / "data") for path in place.glob("*.csv")}
    known, paths, missing = listing(), {}, []
    for subject in subset.subjects:
        for split in splits:
            name = Path(known.file(subject, split)).name
            names = [name.lower(), *(HAERAE_NAMES if subset.task is HAERAE else ())]
            path = next((present[each] for each in names if each in present), None)
            if path is None:
                missing.append(name)
            else:
                paths[subject, split] = path
    if missing and all(name.endswith("-dev.csv") for name in missing):
        raise LabError(
            f"{folder}: no data/{missing[0]}, from which --shots takes its examples; add it, or ask with --shots 0"
        )
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        there = sorted({path.stem.rpartition("-")[0] for path in present.values()} - {""})
        held = (
            f"it holds {', '.join(there[:6])}{' ...' if there[6:] else ''}"
            if there
            else "it holds no such CSV file"
        )
        raise LabError(f"{folder}: no data/{', data/'.join(missing[:4])}{more}; {held}; name others with --subset")
    return Files(str(folder), paths, bool(sample_subjects(folder)))


def read_items(path, task, subject):
    """The items of a CSV file. Raises LabError that names file, line and remedy of every fault."""
    header, rows = _table(Path(path))
    needed = (QUERY, ANSWER) if task is HAERAE else (QUESTION, ANSWER, *OPTIONS)
    if missing := [name for name in needed if name not in header]:
        raise LabError(f"{path}:1: no column {', '.join(missing)}; the header should hold {', '.join(needed)}")
    items, problems = [], []
    for line, row in rows:
        where, cells = f"{path}:{line}", dict(zip(header, row, strict=False))
        if problem := _problem(task, header, row, cells):
            problems.append(f"{where}: {problem}")
            continue
        human = _human(cells.get(HUMAN, ""))
        question, options = cells[needed[0]], () if task is HAERAE else tuple(cells[name] for name in OPTIONS)
        label = _labels(task)[cells[ANSWER].strip()]
        items.append(Item(f"{subject}/{len(items)}", subject, question, options, label, human, where))
    refuse(problems)
    if not items:
        raise LabError(f"{path}:2: no items below the header; get the file again")
    return _as_shares(items)


def _as_shares(items):
    """The items with `human` as a share: a file with a value above 1 is written in per cent."""
    per_cent = any(item.human and item.human > 1 for item in items)
    return [replace(item, human=item.human / 100) if per_cent and item.human else item for item in items]


def _table(path):
    """(header, [(line, row)]) of a CSV file."""
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise LabError(f"{path}: cannot read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise LabError(f"{path}:{line}: not UTF-8; save the file as UTF-8 (it may be CP949)") from error
    reader, rows, line = csv.reader(io.StringIO(text, newline=""), strict=True), [], 0
    try:
        for row in reader:
            rows.append((line + 1, row))
            line = reader.line_num
    except csv.Error as error:
        raise LabError(f"{path}:{line + 1}: not valid CSV ({error}); {IN_A_COPY}") from error
    if not rows:
        raise LabError(f"{path}:1: empty file; get it again")
    header = [name.strip() for name in rows[0][1]]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise LabError(f"{path}:1: column {', '.join(twice)} stands twice; {IN_A_COPY}")
    return header, rows[1:]


def _labels(task):
    """{label as it is written: label from 1}."""
    written = task.choices if task is HAERAE else map(str, range(1, len(task.letters) + 1))
    return {text: number for number, text in enumerate(written, 1)}


def _problem(task, header, row, cells):
    """What is wrong with a row, in words, or None."""
    if not row:
        return "blank line; remove it"
    if len(row) != len(header):
        return f"{len(row)} cells, the header has {len(header)}; a comma or quote is amiss, {IN_A_COPY}"
    needed = (QUERY,) if task is HAERAE else (QUESTION, *OPTIONS)
    if empty := [name for name in needed if not cells[name].strip()]:
        return f"empty {', '.join(empty)}; {IN_A_COPY}"
    if cells[ANSWER].strip() not in _labels(task):
        labels = list(_labels(task))
        return f"answer {cells[ANSWER]!r}; labels are {labels[0]} to {labels[-1]}{_hint(task, cells[ANSWER])}"
    return _human_problem(cells.get(HUMAN, "").strip())


def _hint(task, answer):
    if task is HAERAE:
        return f"; {IN_A_COPY}"
    if answer.strip() == "0":
        return " (1 is A), 0 would be a label from 0; " + IN_A_COPY
    return " (1 is A); write numbers" if answer.strip().upper() in OPTIONS else f" (1 is A); {IN_A_COPY}"


def _human_problem(text):
    try:
        _human(text)
    except ValueError:
        return f"{HUMAN} {text!r}; it is a share from 0 to 1, per cent up to 100, or empty"
    return None


def _human(text):
    """The number in a cell of Human Accuracy, or None for an empty one. Raises ValueError for one that is no share."""
    if text.strip().lower() in ("", "nan"):
        return None
    value = float(text)
    if not 0 <= value <= 100:
        raise ValueError(text)
    return value
