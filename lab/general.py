"""The general world of data_general/: facts for pre-training, replay and probes; identity; plain documents.

A YAML group holds templates (`texts`, `questions`, `answer`, `accept`) and `rows` that fill their slots, one fact a row.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import yaml

from lab.cli import LabError
from lab.facts import Fact, split_wordings
from lab.korean import fill
from lab.records import nfc

GENERAL = Path("data_general")
NOT_FACTS = ("identity.yaml", "documents.yaml")
BANDIT = "bandit"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml reads the world in a tenth of the time


@dataclass(frozen=True)
class Identity:
    """Who the model says it is, in one language: the trained wordings and those never trained."""

    language: str
    train: tuple
    held_out: tuple
    probe_trained: tuple
    base_answer: str
    answer: str
    must: tuple
    must_not: tuple


def read_settings(path, known):
    """The settings of a YAML file, each of them one of `known`. Raises LabError for bad YAML or an unknown key."""
    content = load_yaml(path) or {}
    if not isinstance(content, dict):
        raise LabError(f"{path}:1: expected `key: value` lines")
    if unknown := sorted(content.keys() - set(known)):
        raise LabError(f"{path}: unknown settings {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return content


def read_yaml(path):
    """The content of a YAML list file, strings in NFC. Raises LabError with the line of a fault."""
    content = load_yaml(path)
    if not isinstance(content, list):
        raise LabError(f"{path}:1: expected a YAML list")
    return nfc(content)


def load_yaml(path):
    """The content of a YAML file. Raises LabError with the line of a fault."""
    path, text = Path(path), ""
    try:
        text = path.read_text(encoding="utf-8")
        return yaml.load(text, Loader=LOADER)
    except OSError as error:
        raise LabError(f"{path}: cannot read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        line = min(line, max(1, len(text.splitlines())))  # libyaml finds the end behind the last line
        raise LabError(f"{path}:{line}: not valid YAML; mend the line") from error


def load_facts(folder=GENERAL):
    """Every general fact under `folder`, groups in file order, slots filled."""
    files = sorted(path for path in Path(folder).glob("*.yaml") if path.name not in NOT_FACTS)
    if not files:
        raise LabError(f"{folder}: no YAML files of facts; see data_general/ in the repository")
    return [fact for path in files for group in read_yaml(path) for fact in _facts_of(path, group)]


def _facts_of(path, group):
    try:
        for number, values in enumerate(group.get("rows") or [{}]):
            words = {key: str(value) for key, value in values.items()}
            name = f"{group['group']}/{number}"
            questions = [fill(text, words) for text in group["questions"]]
            if sample := group.get("sample"):
                questions = random.Random(name).sample(questions, sample)
            yield Fact(
                id=name,
                texts=tuple(fill(text, words) for text in group.get("texts", ())),
                questions=tuple(questions),
                answer=fill(group["answer"], words),
                accept=tuple(fill(text, words) for text in group["accept"]),
                where=f"{path} group {name}",
                judge=group.get("judge", ""),
                held_out=group.get("held_out", 1),
            )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        name = group.get("group", "?") if isinstance(group, dict) else group
        raise LabError(f"{path}: group {name}: {error!r}; see the other groups for the form") from error


def split_general(fact):
    """A general fact's wordings: `held_out` of them are probes, never trained in pre-training or replay."""
    return split_wordings(fact.id, fact.questions, probe=fact.held_out)


def load_identity(folder=GENERAL):
    """The identity questions of every language, split by hash, and what makes an answer to them right."""
    path = Path(folder) / "identity.yaml"
    return [_identity(path, entry) for entry in read_yaml(path)]


def _identity(path, entry):
    try:
        split = split_wordings(f"identity-{entry['language']}", entry["questions"], probe=entry["held_out"])
        asked = split_wordings("identity-probe", split.train, probe=entry["probe_trained"]).probe
        answers = {key: entry[key] for key in ("base_answer", "answer")}
        rules = {"must": tuple(map(tuple, entry["must"])), "must_not": tuple(entry["must_not"])}
        return Identity(entry["language"], split.train, split.probe, asked, **answers, **rules)
    except (KeyError, TypeError) as error:
        name = entry.get("language", "?") if isinstance(entry, dict) else entry
        remedy = "see data_general/identity.yaml for the form"
        raise LabError(f"{path}: identity {name}: {error!r}; {remedy}") from error


def load_documents(folder=GENERAL):
    """Plain sentences for pre-training: engineering practice and companies that do not exist."""
    return read_yaml(Path(folder) / "documents.yaml")
