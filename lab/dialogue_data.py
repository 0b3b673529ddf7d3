"""A knowledge file as dialogues in train, valid and test: other wordings of the same facts, cleaned and guarded."""

import random
from dataclasses import replace

from lab import dialogues, general, mixing
from lab.cleaning import Cleaner
from lab.cli import LabError, remove_summary
from lab.knowledge import load_knowledge, with_derived_questions
from lab.records import write_jsonl


def prepare(args):
    """Write the parts of `args.knowledge` to `args.output_dir`; returns (results for the summary, inputs).

    Raises LabError for a fault of the file, a contradiction or a leak, before anything is written.
    """
    cleaner = Cleaner(links=args.links != "remove")
    facts = [cleaned(fact, cleaner) for fact in load_knowledge(args.knowledge)]
    facts, derived, silent = with_derived_questions(facts)
    company = dialogues.company_turns(facts)
    if not company["train"]:
        raise LabError(f"{args.knowledge}: no fact has a question, so there is no dialogue to make; add questions")
    world = general.load_facts(args.general)
    number = mixing.wanted(args, len(company["train"]) + args.several_turns)
    mixed = mixing.general_rows(world, number, args.seed, args.replay_file)
    trained = company["train"] + mixed.train
    valid = company["valid"] + mixed.valid
    dialogues.refuse_contradictions(trained + valid)
    guard = mixing.kept_apart({"valid": valid, "probes": company["probe"]}, world, trained)
    several = dialogues.several_turns(trained, args.several_turns, args.seed)
    rows = [dialogues.messages(turn) for turn in trained] + several
    random.Random(args.seed).shuffle(rows)
    held = valid or company["train"][::10]
    remove_summary(args.output_dir)
    write(args.output_dir, "train", rows)
    write(args.output_dir, "valid", [dialogues.messages(turn) for turn in held])
    write(args.output_dir, "test", mixing.recall_rows(company["probe"]))
    write(args.output_dir, "recall", mixing.recall_rows(valid))
    write(args.output_dir, "dropped", [])  # an earlier table's
    warn(company, valid, silent)
    results = {
        **{"facts": len(facts), "facts_with_derived_questions": derived, "facts_without_questions": silent},
        **{"train": len(rows), "valid": len(held), "test": len(company["probe"]), "recall": len(valid)},
        "probes": guard["probes against training"]["kept"],
        **{"company": len(company["train"]), "several_turns": len(several), "replay": len(mixed.train)},
        **{"replay_source": mixed.source, "replayed_facts": mixed.facts, "leak_guard": guard},
        "cleaning": cleaner.results(),
    }
    return results, [args.knowledge, args.general]


def warn(company, valid, silent):
    """Say what the facts did not allow; `silent` is how many of them have no question."""
    if not valid:
        print(
            "warning: no wording could be held back: valid.jsonl repeats training rows and says nothing of learning"
        )
    elif not company["valid"]:
        print("warning: no company wording could be held back, so validation cannot watch the company's questions")
    if silent:
        print(f"{silent} facts have only text and no clear subject: no dialogue teaches them")


def write(folder, name, rows):
    """Write <folder>/<name>.jsonl; without rows there is no such file, for nothing reads an empty one."""
    path = folder / f"{name}.jsonl"
    if rows:
        write_jsonl(path, rows)
    else:
        path.unlink(missing_ok=True)


def cleaned(fact, cleaner):
    """A fact with its wordings, answer and accepted strings cleaned. Raises LabError where nothing is left of one."""

    def clean(text):
        if not (text := cleaner(text, fact.where)):
            raise LabError(f"{fact.where}: a wording is empty once it is cleaned; mend or remove it")
        return text

    lists = {name: tuple(map(clean, getattr(fact, name))) for name in ("texts", "questions", "accept")}
    fact = replace(fact, **lists, answer=clean(fact.answer))
    if fact.accept and not any(accepted in fact.answer for accepted in fact.accept):
        raise LabError(
            f"{fact.where}: once cleaned, the answer {fact.answer!r} holds none of accept {list(fact.accept)}; "
            "mend one of them, or --links keep"
        )
    return fact
