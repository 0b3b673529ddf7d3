"""Facts -> dialogues for supervised fine-tuning:  python prepare_solverx_sft_data.py --replay 0.5

Writes train.jsonl and valid.jsonl ({"messages"}, or literal ChatML with --format text), recall.jsonl for
--early-stop-on recall and, last, summary.json: questions and answers of the company, who the model is, dialogues of several turns, and general rows against forgetting. The wordings
kept for the test are in neither file, which the leak guard counts; it refuses to write when one slipped in.

Exit codes: 0 written, 1 bad input or a leak, 2 bad usage.
"""

import argparse
import random
import sys
from pathlib import Path

from lab.cli import LabError, finish, write_summary

DEFAULTS = {"replay": 0.5, "several_turns": 60, "sentences": False, "seed": 0}


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, help="YAML file with replay, several_turns, sentences, seed")
    parser.add_argument(
        "--knowledge", type=Path, default=Path("solverx_knowledge.jsonl"), help="facts (%(default)s)"
    )
    parser.add_argument("--general", type=Path, default=Path("data_general"), help="general world (%(default)s)")
    parser.add_argument("--output-dir", type=Path, default=Path("data_solverx_sft"), help="where to (%(default)s)")
    parser.add_argument("--output", type=Path, help="where the summary goes (<output-dir>/summary.json)")
    parser.add_argument("--replay", type=float, help="share of general rows in training, 0 to below 1 (0.5)")
    parser.add_argument("--several-turns", type=int, help="dialogues of two or three turns (60)")
    parser.add_argument(
        "--sentences", action="store_true", default=None, help="keep the CPT sentences as text rows"
    )
    parser.add_argument(
        "--format", choices=["messages", "text"], default="messages", help="row form (%(default)s)"
    )
    parser.add_argument("--seed", type=int, help="of the draws (0)")
    return parser.parse_args(argv)


def settle(args):
    """Fill what no flag gave from the YAML file, then from DEFAULTS."""
    from lab.general import read_settings

    given = read_settings(args.config, DEFAULTS) if args.config else {}
    for key, default in DEFAULTS.items():
        if getattr(args, key) is None:
            setattr(args, key, given.get(key, default))
    if not 0 <= args.replay < 1:
        raise LabError(f"--replay {args.replay}: a share of general rows is 0 or more and below 1")


def main(argv=None):
    args = parse_args(argv)
    settle(args)
    from lab import dialogues, general, leaks
    from lab.knowledge import load_knowledge, split_sentences, with_derived_questions
    from lab.records import write_jsonl

    facts, derived, silent = with_derived_questions(load_knowledge(args.knowledge))
    world, identities = general.load_facts(args.general), general.load_identity(args.general)
    company, identity = dialogues.company_turns(facts), dialogues.identity_turns(identities)
    if not company["train"]:
        raise LabError(f'{args.knowledge}: no fact has a question and none could be derived; add "questions"')
    replayed = dialogues.replayed_facts(world)
    domain = company["train"] + identity["train"]
    wanted = round(args.replay / (1 - args.replay) * (len(domain) + args.several_turns))
    replay = dialogues.replay_turns(replayed, wanted, args.seed)
    if len(replay) < wanted:
        print(f"warning: {wanted} general rows asked for, data_general has {len(replay)}; taking those")
    valid = company["valid"] + (dialogues.general_validation(world, replayed) if args.replay else [])
    trained = [turn.trained_wording() for turn in domain + replay]
    probes = [turn.wording() for turn in company["probe"] + identity["probe"]]
    for fact in world:
        probes += [leaks.Wording(text, fact.accept, fact.where) for text in general.split_general(fact).probe]
    kept = [turn.wording() for turn in valid]
    guard = leaks.guard(
        {
            "validation against training": (kept, trained),
            "probes against training": (probes, trained),
            "probes against validation": (probes, [turn.trained_wording() for turn in valid]),
        }
    )
    rows = [dialogues.messages(turn) for turn in domain + replay]
    rows += dialogues.several_turns(domain + replay, args.several_turns, args.seed)
    held = [dialogues.messages(turn) for turn in valid or company["train"][::10]]
    if not valid:
        print("warning: too few wordings to hold one back, so validation repeats training questions")
    if args.format == "text":
        rows, held = [dialogues.chatml(row) for row in rows], [dialogues.chatml(row) for row in held]
    if args.sentences:
        rows += [{"text": text} for fact in facts for text in split_sentences(fact)[0]]
    random.Random(args.seed).shuffle(rows)
    write_jsonl(args.output_dir / "train.jsonl", rows)
    write_jsonl(args.output_dir / "valid.jsonl", held)
    recall = [{**dialogues.messages(turn), "accept": list(turn.accept)} for turn in valid]
    write_jsonl(args.output_dir / "recall.jsonl", recall)
    counts = {
        "facts": len(facts),
        "facts_with_derived_questions": derived,
        "facts_without_questions": silent,
        "train": len(rows),
        "valid": len(held),
        "probes": len(probes),
        "company": len(company["train"]),
        "identity": len(identity["train"]),
        "several_turns": args.several_turns,
        "replay": len(replay),
    }
    print(f"{args.output_dir}: " + ", ".join(f"{name} {count}" for name, count in counts.items()) + ", leaks 0")
    if silent:
        print(f"{silent} facts have only text and no clear subject: they are taught by CPT alone")
    replayed_ids = sorted(fact.id for fact in replayed) if replay else []
    results = {**counts, "replayed_facts": replayed_ids, "leak_guard": guard}
    inputs = [args.knowledge, args.general, *([args.config] if args.config else [])]
    write_summary(args.output or args.output_dir / "summary.json", args, inputs, results)
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
