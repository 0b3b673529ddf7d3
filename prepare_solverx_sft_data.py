"""Facts -> dialogues for supervised fine-tuning:  python prepare_solverx_sft_data.py --replay 0.5

Writes train.jsonl and valid.jsonl ({"messages"}, or literal ChatML with --format text), recall.jsonl for
--early-stop-on recall and, last, summary.json: questions and answers of the company, who the model is, dialogues of several
turns, and general rows against forgetting. The wordings kept for the test are in neither file, which the leak guard counts;
it refuses to write when one slipped in.

Exit codes: 0 written, 1 bad input or a leak, 2 bad usage.
"""

import argparse
import random
import sys
from pathlib import Path

from lab.cli import LabError, finish, remove_summary, write_summary


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, help="YAML file with any of the settings below")
    parser.add_argument(
        "--knowledge", type=Path, default=Path("solverx_knowledge.jsonl"), help="facts (%(default)s)"
    )
    parser.add_argument("--general", type=Path, default=Path("data_general"), help="general world (%(default)s)")
    parser.add_argument("--output-dir", type=Path, default=Path("data_solverx_sft"), help="where to (%(default)s)")
    parser.add_argument("--output", type=Path, help="where the summary goes (<output-dir>/summary.json)")
    parser.add_argument(
        "--replay", type=float, help="share of general rows among all training rows, 0 to below 1 (0.5)"
    )
    text = "rows of prepare_replay_data.py in place of the authored general ones"
    parser.add_argument("--replay-file", type=Path, metavar="FILE.jsonl", help=text)
    parser.add_argument("--several-turns", type=int, help="dialogues of two or three turns (60)")
    parser.add_argument("--identity-repeats", type=int, help="how often each identity pair stands there (1)")
    parser.add_argument(
        "--sentences", action="store_true", default=None, help="keep the CPT sentences as text rows"
    )
    parser.add_argument(
        "--format", choices=["messages", "text"], default="messages", help="row form (%(default)s)"
    )
    parser.add_argument("--seed", type=int, help="of the draws (0)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    from lab import dialogues, general, mixing
    from lab.knowledge import load_knowledge, split_sentences, with_derived_questions
    from lab.records import write_jsonl

    mixing.settle(args, mixing.DEFAULTS)
    if args.identity_repeats < 1:
        raise LabError("--identity-repeats is 1 or more")
    facts, derived, silent = with_derived_questions(load_knowledge(args.knowledge))
    world, identities = general.load_facts(args.general), general.load_identity(args.general)
    company, identity = dialogues.company_turns(facts), dialogues.identity_turns(identities)
    sentences = [{"text": text} for fact in facts if args.sentences for text in split_sentences(fact)[0]]
    domain = company["train"] + identity["train"] * args.identity_repeats
    number = mixing.wanted(args, len(domain) + args.several_turns + len(sentences))
    mixed = mixing.general_rows(world, number, args.seed, args.replay_file)
    replay = mixed.train
    parts = {"valid": company["valid"] + mixed.valid, "probes": company["probe"] + identity["probe"]}
    dialogues.refuse_contradictions(domain + replay + parts["valid"])
    guard = mixing.kept_apart(parts, world, domain + replay)
    rows = [dialogues.messages(turn) for turn in domain + replay]
    several = dialogues.several_turns(domain + replay, args.several_turns, args.seed)
    rows += several
    held = [dialogues.messages(turn) for turn in parts["valid"] or domain[::10]]
    if not company["valid"]:
        print("warning: no company wording could be held back, so validation cannot watch the company's questions")
    if args.format == "text":
        rows, held = [dialogues.chatml(row) for row in rows], [dialogues.chatml(row) for row in held]
    rows += sentences
    random.Random(args.seed).shuffle(rows)
    remove_summary(args.output_dir)
    write_jsonl(args.output_dir / "train.jsonl", rows)
    write_jsonl(args.output_dir / "valid.jsonl", held)
    write_jsonl(args.output_dir / "recall.jsonl", mixing.recall_rows(parts["valid"]))
    counts = {
        "facts": len(facts),
        "facts_with_derived_questions": derived,
        "facts_without_questions": silent,
        "train": len(rows),
        "valid": len(held),
        "probes": guard["probes against training"]["kept"],
        "company": len(company["train"]),
        "identity": len(identity["train"]) * args.identity_repeats,
        "several_turns": len(several),
        "sentences": len(sentences),
        "replay": len(replay),
    }
    print(f"{args.output_dir}: " + ", ".join(f"{name} {count}" for name, count in counts.items()) + ", leaks 0")
    if silent:
        print(f"{silent} facts have only text and no clear subject: they are taught by CPT alone")
    results = {**counts, "replay_source": mixed.source, "replayed_facts": mixed.facts, "leak_guard": guard}
    inputs = [args.knowledge, args.general, *(path for path in (args.config, args.replay_file) if path)]
    write_summary(args.output or args.output_dir / "summary.json", args, inputs, results)
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
