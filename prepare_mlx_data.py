"""Facts, or any table, -> data_mlx/{train,valid,test}.jsonl for mlx-lm, cleaned, without duplicates, split by group.

  python prepare_mlx_data.py --knowledge solverx_knowledge.jsonl --replay 0.5
  python prepare_mlx_data.py --input faq.csv --question-column 질문 --answer-column 답변 --general-rows 15
  python prepare_mlx_data.py --input reviews.csv --text-column text --answer-column label --label-column label
  python prepare_mlx_data.py --input articles.parquet --text-column body

From a knowledge file (the default): of every fact some wordings train, one validates, two are kept for the test; the leak
guard compares all three, and general rows stand among the training and validation rows, against forgetting.
From a table (.csv, .tsv, .jsonl, .parquet): a question and its answer become {"messages"}; so does a text with a class
(--text-column with --answer-column: the text is the user's turn, the class the answer); a text alone stays {"text"}.
Rows of one --group-column stay in one part. Without it rows with the same answer do. So do, always, equal questions (both
by letters and digits alone) and near duplicates that are not dropped; a class makes no group. Parts go by hash of group and seed, so that new rows move no old ones.

Cleaning: Unicode NFC, control and zero-width characters, HTML, URLs and e-mail addresses, white space, length; code in
``` fences or `backticks` stays. Of duplicates, near duplicates (trigram Jaccard 0.8, same answer) and of a question with
several answers the first row stays. cleaning.md counts each step with an example, dropped.jsonl lists every row that was
dropped. recall.jsonl is for --early-stop-on recall: validation questions with short answers.

Exit codes: 0 written, 1 bad input or a leak, 2 bad usage.
"""

import argparse
import sys
from pathlib import Path

from lab.cli import LabError, check_place, finish, remove_partials, write_atomically, write_summary

WRITTEN = (
    "train.jsonl",
    "valid.jsonl",
    "test.jsonl",
    "recall.jsonl",
    "dropped.jsonl",
    "cleaning.md",
    "summary.json",
)
COLUMNS = ("question_column", "answer_column", "text_column", "group_column", "label_column")


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group()
    facts = "facts (solverx_knowledge.jsonl)"
    source.add_argument("--knowledge", type=Path, metavar="FILE.jsonl", help=facts)
    source.add_argument("--input", type=Path, metavar="FILE", help="a table: .csv, .tsv, .jsonl or .parquet")
    add("--question-column", metavar="NAME", help="the user's turn")
    add("--answer-column", metavar="NAME", help="the assistant's turn")
    add("--text-column", metavar="NAME", help="plain text; with --answer-column, a text that is put in a class")
    add("--group-column", metavar="NAME", help="rows with the same value stay in one part")
    add("--label-column", metavar="NAME", nargs="+", default=[], help="kept beside the row, under their own names")
    add("--encoding", default="utf-8", help="of the table: cp949, say (%(default)s)")
    tab = {"\\t": "\t"}
    separator = "between cells (, in .csv, a tab, '\\t', in .tsv)"
    add("--separator", metavar="CHARACTER", type=lambda text: tab.get(text, text), help=separator)
    add("--valid-share", type=float, default=0.1, help="of a table's groups (%(default)s)")
    add("--test-share", type=float, default=0.1, help="of a table's groups (%(default)s)")
    add("--min-length", type=int, default=2, help="characters a table's question or text must have (%(default)s)")
    add(
        "--max-length",
        type=int,
        default=8000,
        help="characters a table's row may have, its answer too (%(default)s)",
    )
    links = "URLs and e-mail addresses (removed from a table, kept in facts, where they may be the answer)"
    add("--links", choices=["keep", "remove"], help=links)
    add("--keep-near-duplicates", action="store_true", help="keep them, in one part, instead of dropping them")
    replay = "share of general rows among all training rows (0.5 beside facts, 0 beside a table)"
    add("--replay", type=float, help=replay)
    add("--general-rows", type=int, metavar="N", help="so many general rows instead of a share")
    text = "rows of prepare_replay_data.py in place of the authored general ones"
    add("--replay-file", type=Path, metavar="FILE.jsonl", help=text)
    add("--several-turns", type=int, help="dialogues of two or three turns, made of facts (60)")
    add("--general", type=Path, default=Path("data_general"), help="general world (%(default)s)")
    add("-c", "--config", type=Path, help="YAML file with replay, several_turns or seed (configs/data.yaml)")
    add("--seed", type=int, help="of the draws and the split (0)")
    add("--output-dir", type=Path, default=Path("data_mlx"), help="where to (%(default)s)")
    add("--output", type=Path, help="where the summary goes (<output-dir>/summary.json)")
    args = parser.parse_args(argv)
    check_usage(parser, args)
    return args


def check_usage(parser, args):
    """End with a usage error where flags do not go together."""
    if args.input is None:
        if given := [name for name in COLUMNS if getattr(args, name)]:
            parser.error(f"--{given[0].replace('_', '-')} is for --input FILE")
        args.knowledge = args.knowledge or Path("solverx_knowledge.jsonl")
    elif bool(args.question_column) == bool(args.text_column):
        parser.error("--input needs --question-column and --answer-column, or --text-column")
    elif args.question_column and not args.answer_column:
        parser.error("--question-column needs --answer-column")
    if args.replay is not None and args.general_rows is not None:
        parser.error("--replay and --general-rows: give one of them")
    if args.general_rows is not None and args.general_rows < 0:
        parser.error("--general-rows is 0 or more")
    if not (min(args.valid_share, args.test_share) >= 0 and args.valid_share + args.test_share < 1):
        parser.error("--valid-share and --test-share are 0 or more, and below 1 together")
    if not 1 <= args.min_length <= args.max_length:
        parser.error("--min-length is 1 or more and at most --max-length")
    if args.separator is not None and (len(args.separator) != 1 or args.separator in '"\r\n'):
        parser.error("--separator is one character, and neither a quote nor a new line")


def refuse_own_input(args):
    """Raise LabError where a file that is to be read is one that would be written over or removed."""
    written = {(args.output_dir / name).resolve() for name in WRITTEN}
    written |= {args.output.resolve()} if args.output else set()
    for path in (args.input, args.knowledge, args.replay_file, args.config):
        if path and path.resolve() in written:
            raise LabError(f"{path}: would be written over by this run; choose another --output-dir or --output")


def main(argv=None):
    args = parse_args(argv)
    from lab import cleaning_report, mixing

    summary = args.output or args.output_dir / "summary.json"
    for path in (summary, args.output_dir / "summary.json"):
        check_place(path)
    refuse_own_input(args)
    remove_partials(args.output_dir)
    mixing.settle(args, {"replay": 0.5 if args.input is None else 0.0, "several_turns": 60, "seed": 0})
    if args.input is None:
        from lab.dialogue_data import prepare
    else:
        from lab.table_data import prepare
    results, inputs = prepare(args)
    source = args.input or args.knowledge
    write_atomically(args.output_dir / "cleaning.md", cleaning_report.markdown(source, results))
    print("\n".join(cleaning_report.lines(source, args.output_dir, results)))
    inputs += [path for path in (args.config, args.replay_file) if path]
    write_summary(summary, args, inputs, results)
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
