"""Recall while training: which facts of <data>/recall.jsonl the model can say, greedily."""

from pathlib import Path

from lab import models, probes, ranks
from lab.cli import LabError
from lab.facts import cut_before
from lab.records import training_rows

RECALL_TOKENS = 48


def load(folder):
    """What --early-stop-on recall asks: the Probes of <folder>/recall.jsonl.

    A {"text", "accept"} row is cut before its accepted string, a {"messages", "accept"} row asks for its last answer.
    """
    path = Path(folder) / "recall.jsonl"
    if not path.is_file():
        raise LabError(f"{path}: no such file; --early-stop-on recall needs it, `make data` writes it")
    asked = []
    for number, row in training_rows(path):
        accept = row.get("accept")
        if not isinstance(accept, list) or not accept:
            raise LabError(f'{path}:{number}: no "accept"; list the strings that make it right')
        cut = (row["messages"][:-1], "") if "messages" in row else cut_before(row["text"], accept)
        if cut is None:
            raise LabError(
                f"{path}:{number}: nothing stands before {accept}; reword the sentence or remove the row"
            )
        kind = probes.CHAT if "messages" in row else probes.COMPLETION
        asked.append(probes.Probe(f"recall.jsonl:{number}", "recall", cut[0], tuple(accept), kind=kind))
    return asked


def share(model, tokenizer, asked):
    """The share of the Probes `asked` that the model, greedy, gets right; its mode is put back."""
    was_training = model.training
    model.eval()
    right = 0
    for kind, generate in ((probes.COMPLETION, models.complete), (probes.CHAT, models.answer)):
        own = ranks.split([probe for probe in asked if probe.kind == kind])
        prompts = [probe.prompt for probe in own]
        said = generate(model, tokenizer, prompts, max_tokens=RECALL_TOKENS) if own else []
        right += sum(probes.judge(probe, text) for probe, text in zip(own, said, strict=True))
    model.train(was_training)
    return ranks.total(float(right)) / len(asked)
