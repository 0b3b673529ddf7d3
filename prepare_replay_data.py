"""Self-generated replay: general questions, answered by the base model itself, against forgetting.

  python prepare_replay_data.py --output-dir data_solverx_replay
  python prepare_solverx_sft_data.py --replay-file data_solverx_replay/train.jsonl

Asks the model, without any adapter, the general questions that may be trained (never a wording kept for the test),
takes its greedy answers, and leaves out what should not be trained again: empty, cut, repeating, about the company, about
itself, near duplicates; summary.json counts each. Refusals stay: without them the model forgets that there are things it
does not know, and answers with the company (docs/LOG.md). --prompts FILE asks your own questions, one a line, instead.
--from-scratch N lets the model make up N questions first, out of an empty user turn, and needs no questions at all.

Exit codes: 0 written, 1 bad input, 2 bad usage, 3 no answer was fit to keep.
"""

import sys
from pathlib import Path

from lab import stages
from lab.cli import CheckFailed, LabError, check_place, finish, remove_summary, write_summary


def parse_args(argv):
    parser = stages.command_parser(__doc__)
    stages.add_model_flags(parser, adapters=False)
    add = parser.add_argument
    add("--knowledge", type=Path, default=stages.KNOWLEDGE, help="the company's facts (%(default)s)")
    add("--general", type=Path, default=stages.GENERAL, help="general questions (%(default)s)")
    add("--prompts", type=Path, metavar="FILE.txt", help="questions of your own, one a line")
    add("--from-scratch", type=int, default=0, metavar="N", help="let the model make up N questions")
    add(
        "--temperature", type=float, default=1.0, help="of the made-up questions; answers are greedy (%(default)s)"
    )
    add("--seed", type=int, default=0, help="of the made-up questions (%(default)s)")
    add("--drop-refusals", action="store_true", help="leave out answers like 'I do not know', too")
    add("--limit", type=int, help="ask at most so many questions, evenly spread (all)")
    add("--output-dir", type=Path, default=Path("data_solverx_replay"), help="where to (%(default)s)")
    args = parser.parse_args(argv)
    if args.from_scratch < 0 or args.temperature <= 0 or (args.limit is not None and args.limit < 1):
        parser.error("--from-scratch is 0 or more, --temperature above 0, --limit 1 or more")
    if args.prompts and args.from_scratch:
        parser.error("--prompts and --from-scratch: give one of them")
    return args


def general_questions(folder):
    """[row without an answer] of the trained wordings of the general facts that SFT may replay."""
    from lab import dialogues, general

    rows = []
    for fact in dialogues.replayed_facts(general.load_facts(folder)):
        more = {"fact": fact.id, "accept": list(fact.accept), **({"judge": fact.judge} if fact.judge else {})}
        rows += [{"question": question, **more} for question in general.split_general(fact).train]
    return rows


def own_questions(path):
    """[row without an answer] of a text file, one question a line."""
    from lab.records import read_lines

    if not (asked := [line.strip() for line in read_lines(path) if line.strip()]):
        raise LabError(f"{path}:1: no question; write one a line")
    return [{"question": line} for line in dict.fromkeys(asked)]


def answered(args, model, tokenizer, rows):
    """(`rows` as {"messages"} rows with the model's greedy answers, the set of questions whose answer was cut)."""
    from lab import models

    asked = [row["question"] for row in rows]
    programs = [bool(row.get("judge")) for row in rows]
    tokens = [args.program_tokens if program else args.max_tokens for program in programs]
    said = models.generated(model, tokenizer, models.chat_prompts(tokenizer, asked), tokens, args.batch_size)
    cut = {question for question, (_, whole) in zip(asked, said, strict=True) if not whole}
    made = []
    for row, (text, _) in zip(rows, said, strict=True):
        turns = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": text.strip()}]
        made.append({"messages": turns, **{key: value for key, value in row.items() if key != "question"}})
    return made, cut


def made_up(args, model, tokenizer):
    """[row without an answer]: what the model writes where a user's turn stands empty, sampled.

    Source: Xu et al., Magpie, arXiv 2406.08464.
    """
    from lab import models

    prompts = [models.user_opening(tokenizer)] * args.from_scratch
    drawn = (args.batch_size, args.temperature, args.seed)
    said = models.sampled(model, tokenizer, prompts, args.max_tokens, *drawn)
    questions = dict.fromkeys(text.strip() for text, whole in said if whole)
    return [{"question": question} for question in questions if question]


def kept_apart(args, rows, counts):
    """`rows` without those that SFT must not train; what is left out is counted under "leak".

    Questions from elsewhere than the trained wordings may meet one that is kept for the test or for validation, one of a fact
    that is never replayed, or one that SFT answers itself.
    """
    from lab import dialogues, general, leaks
    from lab.knowledge import load_knowledge, with_derived_questions
    from lab.probes import bandit_probes, company_probes, general_probes

    facts, _, _ = with_derived_questions(load_knowledge(args.knowledge))
    world, identity = general.load_facts(args.general), general.load_identity(args.general)
    probes = company_probes(facts) + general_probes(world) + bandit_probes(world)
    kept = [leaks.Wording(probe.prompt, probe.accept, probe.id) for probe in probes if probe.kind != "completion"]
    replayed = dialogues.replayed_facts(world)
    valid = dialogues.company_turns(facts)["valid"] + dialogues.general_validation(world, replayed)
    kept += [turn.wording() for turn in valid]
    # of these the same wording only: "10월은" and "11월은 어느 계절이야?" are near, and have one answer
    alone = [
        (text, fact.where) for fact in world if fact not in replayed for text in general.split_general(fact).train
    ]
    alone += [(turn.question, turn.where) for part in dialogues.identity_turns(identity).values() for turn in part]
    kept += [leaks.Wording(text, (), where) for text, where in alone]
    turns = [[turn["content"] for turn in row["messages"]] for row in rows]
    taught = [leaks.Wording(asked, (said,), f"row {place}") for place, (asked, said) in enumerate(turns)]
    leaking = {leak.trained.where for leak in leaks.find_leaks(kept, taught)}
    counts["leak"] = len(leaking)
    return [row for place, row in enumerate(rows) if f"row {place}" not in leaking]


def written_rows(args):
    """The rows to answer whose questions stand in a file."""
    rows = own_questions(args.prompts) if args.prompts else general_questions(args.general)
    if args.limit and args.limit < len(rows):
        rows = [rows[place * len(rows) // args.limit] for place in range(args.limit)]
    return rows


def fit_to_train(args, tokenizer, made, cut):
    """(the rows that may be trained again, {reason: how many were left out})."""
    from lab import general, replay
    from lab.answers import turn_marks
    from lab.knowledge import entity_of, load_knowledge

    identities = general.load_identity(args.general)
    about = {
        "company": entity_of(load_knowledge(args.knowledge)),
        "names": sorted({name for who in identities for name in who.must_not}),
        "marks": turn_marks(tokenizer),
    }

    def refuse(question, answer):
        reason = replay.refused(question, answer, cut=question in cut, **about)
        return reason if args.drop_refusals or reason != "refusal" else None

    kept, left_out = replay.fit(made, refuse)
    return kept_apart(args, kept, left_out), left_out


def main(argv=None):
    args = parse_args(argv)
    from lab import general, knowledge, replay
    from lab.records import write_jsonl

    for read, path in ((knowledge.load_knowledge, args.knowledge), (general.load_facts, args.general)):
        read(path)  # a fault in it is told before the answers, not after them
    check_place(args.output or args.output_dir / "summary.json")
    check_place(args.output_dir / "train.jsonl")
    rows = None if args.from_scratch else written_rows(args)
    model, tokenizer = stages.load_model(args)
    rows = made_up(args, model, tokenizer) if rows is None else rows
    source = "made up by the model" if args.from_scratch else f"of {args.prompts or args.general}"
    print(f"{args.from_scratch or len(rows)} questions {source}; {len(rows)} to answer", flush=True)
    kept, left_out = fit_to_train(args, tokenizer, *answered(args, model, tokenizer, rows))
    said = ", ".join(f"{reason} {count}" for reason, count in left_out.items() if count) or "none"
    print(f"{args.output_dir}: {len(kept)} rows; left out: {said}")
    if not kept:
        raise CheckFailed(f"{args.model}: no answer was fit to keep; see the counts above")
    remove_summary(args.output_dir)
    write_jsonl(args.output_dir / "train.jsonl", kept)
    counts = {
        "questions": source,
        "asked": args.from_scratch or len(rows),
        "answered": len(rows),
        "train": len(kept),
    }
    refusals = sum(replay.REFUSAL.search(row["messages"][1]["content"]) is not None for row in kept)
    inputs = [
        args.knowledge,
        args.general,
        *stages.model_files(args, []),
        *([args.prompts] if args.prompts else []),
    ]
    results = {**counts, "refusals_kept": refusals, "left_out": left_out}
    write_summary(args.output or args.output_dir / "summary.json", args, inputs, results)
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
