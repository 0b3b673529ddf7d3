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
from collections import Counter
from pathlib import Path

from lab.cli import LabError, finish, remove_summary, write_summary

DEFAULTS = {"replay": 0.5, "several_turns": 60, "identity_repeats": 1, "sentences": False, "seed": 0}


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


def settle(args):
    """Fill what no flag gave from the YAML file, then from DEFAULTS, and check it."""
    from lab.general import read_settings

    given = read_settings(args.config, DEFAULTS) if args.config else {}
    for key, default in DEFAULTS.items():
        if getattr(args, key) is None:
            value = given.get(key, default)
            if type(value) is not type(default) and not (type(default) is float and type(value) is int):
                raise LabError(f"{args.config}: {key} is {value!r}; it must be of the kind of {default!r}")
            setattr(args, key, value)
    if not 0 <= args.replay < 1:
        raise LabError(f"--replay {args.replay}: a share of general rows is 0 or more and below 1")
    if args.several_turns < 0 or args.identity_repeats < 1:
        raise LabError("--several-turns is 0 or more, --identity-repeats 1 or more")


def kept_apart(parts, world, trained):
    """The leak guard's counts: validation and every probe against what is trained. Raises LabError for a leak."""
    from lab import general, leaks

    probes = [turn.wording() for turn in parts["probes"]]
    for fact in world:
        probes += [leaks.Wording(text, fact.accept, fact.where) for text in general.split_general(fact).probe]
    taught = [turn.trained_wording() for turn in trained]
    valid = parts["valid"]
    return leaks.guard(
        {
            "validation against training": ([turn.wording() for turn in valid], taught),
            "probes against training": (probes, taught),
            "probes against validation": (probes, [turn.trained_wording() for turn in valid]),
        }
    )


def main(argv=None):
    args = parse_args(argv)
    settle(args)
    from lab import dialogues, general
    from lab import replay as replay_file
    from lab.knowledge import load_knowledge, split_sentences, with_derived_questions
    from lab.records import write_jsonl

    facts, derived, silent = with_derived_questions(load_knowledge(args.knowledge))
    world, identities = general.load_facts(args.general), general.load_identity(args.general)
    company, identity = dialogues.company_turns(facts), dialogues.identity_turns(identities)
    sentences = [{"text": text} for fact in facts if args.sentences for text in split_sentences(fact)[0]]
    domain = company["train"] + identity["train"] * args.identity_repeats
    replayed = dialogues.replayed_facts(world)
    wanted = round(args.replay / (1 - args.replay) * (len(domain) + args.several_turns + len(sentences)))
    items = replay_file.read(args.replay_file) if args.replay_file else dialogues.authored(replayed)
    replay = dialogues.spread_out(items, wanted, args.seed)
    if len(items) < wanted:
        times = max(Counter(turn.question for turn in replay).values(), default=0)
        print(
            f"{wanted} general rows asked for, there are {len(items)}: some stand there again, up to {times} times"
        )
    general_valid = dialogues.general_validation(world, replayed) if args.replay else []
    parts = {"valid": company["valid"] + general_valid, "probes": company["probe"] + identity["probe"]}
    dialogues.refuse_contradictions(domain + replay + parts["valid"])
    guard = kept_apart(parts, world, domain + replay)
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
    recall = [{**dialogues.messages(turn), "accept": list(turn.accept)} for turn in parts["valid"]]
    write_jsonl(args.output_dir / "recall.jsonl", recall)
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
    used = set(replay)
    replayed_ids = sorted({fact for fact, _, turn in items if turn in used})
    source = ("self" if args.replay_file else "authored") if replay else "none"
    results = {**counts, "replay_source": source, "replayed_facts": replayed_ids, "leak_guard": guard}
    inputs = [args.knowledge, args.general, *(path for path in (args.config, args.replay_file) if path)]
    write_summary(args.output or args.output_dir / "summary.json", args, inputs, results)
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
