"""Facts -> raw sentences for continued pre-training:  python prepare_solverx_cpt_data.py --knowledge solverx_knowledge.jsonl

Writes train.jsonl and valid.jsonl ({"text"}), recall.jsonl for --early-stop-on recall and, last, summary.json. Validation holds one paraphrase of each fact that
has some, never other facts: an unknown fact cannot be guessed, so its loss says nothing about learning.

Exit codes: 0 written, 1 bad input or a leak, 2 bad usage.
"""

import argparse
import sys
from pathlib import Path

from lab.cli import finish, remove_summary, write_summary


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--knowledge", type=Path, default=Path("solverx_knowledge.jsonl"), help="facts (%(default)s)"
    )
    parser.add_argument("--output-dir", type=Path, default=Path("data_solverx_cpt"), help="where to (%(default)s)")
    parser.add_argument("--output", type=Path, help="where the summary goes (<output-dir>/summary.json)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    from lab import leaks
    from lab.knowledge import load_knowledge, recall_row, split_sentences
    from lab.records import write_jsonl

    facts = load_knowledge(args.knowledge)
    trained, kept = [], []
    for fact in facts:
        train, valid = split_sentences(fact)
        trained += [leaks.Wording(text, (text,), fact.where) for text in train]
        kept += [leaks.Wording(text, fact.accept or (text,), fact.where) for text in valid]
    guard = leaks.guard({"validation against training": (kept, trained)})
    if not kept:  # a file of bare sentences: validation can only watch the loss on what is trained
        print(
            f"warning: no fact of {args.knowledge} has two paraphrases, so validation repeats training sentences"
        )
        kept = trained[:: max(1, len(trained) // 20)]
    remove_summary(args.output_dir)
    write_jsonl(args.output_dir / "train.jsonl", [{"text": item.text} for item in trained])
    write_jsonl(args.output_dir / "valid.jsonl", [{"text": item.text} for item in kept])
    # What --early-stop-on recall completes: the facts' own first sentences, trained on purpose; see docs/LOG.md.
    recall = [row for row in map(recall_row, facts) if row]
    write_jsonl(args.output_dir / "recall.jsonl", recall)
    print(
        f"{args.output_dir}: {len(facts)} facts, {len(trained)} training and {len(kept)} validation sentences, 0 leaks"
    )
    results = {
        "facts": len(facts),
        "train": len(trained),
        "valid": len(kept),
        "recall": len(recall),
        "leak_guard": guard,
    }
    write_summary(args.output or args.output_dir / "summary.json", args, [args.knowledge], results)
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
