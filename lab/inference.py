"""Ask a model on the command line: one question, a file of them, or a chat. What infer_gemma and infer_gemma_lora share."""

import sys
import time
from pathlib import Path

from lab import sampling, stages, token_limits
from lab.cli import LabError, check_place, read_json, write_atomically, write_summary
from lab.hub import GEMMA_TINY, default_gemma, model_folder
from lab.lineage import warn_of_other_model
from lab.progress import progress

ADAPTERS, ADAPTERS_TINY = Path("adapters"), Path("adapters_gemma_tiny")


def add_flags(parser, adapter):
    """The flags of both commands; `adapter`: with --adapter-path."""
    add, count = parser.add_argument, stages.count
    add(
        "--model",
        type=Path,
        default=default_gemma(),
        help="folder of the model, or its id on the hub (%(default)s)",
    )
    if adapter:
        add("--adapter-path", metavar="DIR", help=f"({ADAPTERS_TINY} on {GEMMA_TINY}, else {ADAPTERS})")
    what = parser.add_argument_group("what to ask").add_mutually_exclusive_group().add_argument
    what("-p", "--prompt", metavar="TEXT", help="one question; - reads it from standard input")
    what("--file", type=Path, help='.jsonl of {"prompt"}, {"question"} or {"messages"}; else one question a line')
    what(
        "--chat", action="store_true", help="a chat, /help in it lists its commands (without these on a terminal)"
    )
    add("--system", metavar="TEXT", help="a system turn in front, where the model's chat template knows one")
    add("-m", "--max-tokens", type=count, help="longest answer (512; 64 for an embedded model)")
    add(
        "--max-context", type=count, help="most tokens of prompt and answer together (what the model was made for)"
    )
    sampling.add_flags(parser)
    add = parser.add_argument_group("with --file").add_argument
    add(
        "--output",
        type=Path,
        metavar="FILE.jsonl",
        help="where answers go; FILE.summary.json says how they were made",
    )
    add("--batch-size", type=count, default=64, help="answers at a time (%(default)s)")
    add(
        "--resume",
        action="store_true",
        help="go on behind what a stopped run has answered; finished answers of this run stay",
    )
    add(
        "--overwrite",
        action="store_true",
        help="replace finished answers, and a stopped run's that are not to go on or of another run",
    )
    parser.add_argument("--verbose", action="store_true", help="device, loading, tokens/s on standard error")


def parse_args(description, argv, adapter=False):
    """The arguments of a command; its --adapter-path becomes a list, as lab.stages has it."""
    parser = stages.command_parser(description)
    add_flags(parser, adapter)
    args = parser.parse_args(argv)
    if not args.file and (args.output or args.resume or args.overwrite):
        parser.error("--output, --resume and --overwrite go with --file")
    if (args.resume or args.overwrite) and not args.output:
        parser.error("--resume and --overwrite go with --output")
    adapter_of = ADAPTERS_TINY if args.model == GEMMA_TINY else ADAPTERS
    args.adapter_path = [(args.adapter_path or str(adapter_of)) if adapter else stages.BASE]
    return args


def run(args):
    """Ask as `args` say. Raises LabError for what can be known wrong before the model is loaded, and after."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # a model may say what a terminal that is not UTF-8 lacks
    settings = sampling.sampling_of(args)
    model_folder(args.model)  # a model that is not there is told before an adapter, whose default hangs on it
    (stage,) = stages.stages_of(args)
    if args.file:
        return answer_file(args, settings, stage)
    if args.prompt is not None:
        return answer_one(args, settings, stage, question_of(args.prompt))
    return answer_lines(args, settings, stage)


def question_of(prompt):
    """The text of --prompt, or standard input for "-". Raises LabError where there is none."""
    from lab import terminal_chat
    from lab.records import nfc

    where = "standard input" if prompt == "-" else "--prompt"
    text = "\n".join(terminal_chat.lines()) if prompt == "-" else prompt
    terminal_chat.check_text(text, where)
    if not text.strip():
        raise LabError(f"{where}: empty; write a question")
    return nfc(text)


def context_of(args):
    """The most tokens of prompt and answer: --max-context, at most what the model was made for.

    Without the flag Gemma-2 keeps to its sliding window. Source: mlx_lm 0.32.2, models/gemma2.py has none: beyond it,
    every second layer would see more than it was trained to.
    """
    config = read_json(model_folder(args.model) / "config.json", "name a model's folder")
    made_for = config.get("max_position_embeddings") or sys.maxsize
    if args.max_context and args.max_context > made_for:
        raise LabError(f"--max-context {args.max_context}: {args.model} was made for {made_for}; at most that")
    window = config.get("sliding_window") if config.get("model_type") == "gemma2" else None
    return args.max_context or min(made_for, window or made_for)


def load(args, settings, stage):
    """The Asker of --model with its adapter on; also settles args.max_tokens."""
    context = context_of(args)
    token_limits.settle(args)
    from lab import conversation, device, models, terminal_chat

    started = time.monotonic()
    model, tokenizer = models.load(args.model, stage.adapter)
    if args.verbose:
        terminal_chat.tell(device.describe())
        what = f"{args.model}{f' with {stage.adapter}' if stage.adapter else ''}"
        terminal_chat.tell(f"loaded {what} in {time.monotonic() - started:.1f} s")
    warn_of_other_model(stage.adapter, args.model)
    if args.system:
        conversation.check_system(tokenizer, system_turns(args))
    return conversation.Asker(model, tokenizer, settings, args.max_tokens, context)


def system_turns(args):
    """--system as turns."""
    return [{"role": "system", "content": args.system}] if args.system else []


def answer_one(args, settings, stage, text, place=0, asker=None):
    """Print the answer to `text` as it comes; what else is to be said goes to standard error."""
    from lab import terminal_chat

    asker = asker or load(args, settings, stage)
    where = "--prompt" if args.prompt is not None else f"standard input:{place + 1}"
    messages = [*system_turns(args), {"role": "user", "content": text}]
    answer = asker.answer(asker.prompt(messages, where), place)
    terminal_chat.show_pieces(answer)
    terminal_chat.tell_about(asker, answer, args.verbose)


def answer_lines(args, settings, stage):
    """A chat, or without --chat off a terminal an answer to each line of standard input on its own."""
    from lab import conversation, terminal_chat
    from lab.records import nfc

    asker = load(args, settings, stage)
    if args.chat or sys.stdin.isatty():
        talk = conversation.Conversation(asker, args.system)
        terminal_chat.tell(f"{args.model}: /help lists what else can be written; /quit leaves")
        terminal_chat.Chat(talk, args.verbose).run()
        return
    for place, line in enumerate(terminal_chat.lines()):
        terminal_chat.check_text(line, f"standard input:{place + 1}")
        if line.strip():
            answer_one(args, settings, stage, nfc(line.strip()), place, asker)


def answer_file(args, settings, stage):
    """Answer --file in batches, in parts that are kept, and write --output, its summary first."""
    from lab import questions

    summary = args.output.with_suffix(".summary.json") if args.output else None
    for path in (args.output, summary) if args.output else ():
        check_place(path, [args.file])
    if args.output and args.output.exists() and not (args.resume or args.overwrite):
        raise LabError(
            f"{args.output}: exists; --overwrite replaces it, --resume keeps it where it is of this very run"
        )
    asked = questions.read_questions(args.file)
    asker = load(args, settings, stage)
    prompts = prompts_of(asker, asked, system_turns(args))
    files = [args.file, *stages.model_files(args, [stage])]
    made = {**settings.as_json(), "max_tokens": asker.max_tokens, "context": asker.context}
    key = questions.run_key(args, stage.adapter, made) if args.output else ""
    if args.resume and questions.is_finished(args.output, summary, key):
        args.output.touch()  # make, which goes by its time, is told so
        print(f"{args.output}: these answers are finished; nothing to do", file=sys.stderr)
        return
    partial = questions.Partial(args.output, key) if args.output else None
    rows = partial.begin(args.resume, args.overwrite) if partial else []
    started, resumed = time.monotonic(), len(rows)
    try:
        for part in answered(args, asker, asked, prompts, resumed):
            rows += part
            keep(part, partial)
    except KeyboardInterrupt:
        if not partial:
            raise
        said = f"{len(rows)} of {len(asked)} answers are in {partial.path}; --resume goes on"
        raise KeyboardInterrupt(said) from None
    cut = sum(not row["ended"] for row in rows)
    if cut:
        print(f'[{cut} of {len(rows)} answers cut at their limit: "ended": false]', file=sys.stderr)
    if partial:
        from lab.records import to_jsonl

        figures = {"run": key, "answers": len(rows), "cut": cut, "resumed_after": resumed, "sampling": made}
        seconds = round(time.monotonic() - started, 2)
        write_summary(summary, args, files, {**figures, "seconds": seconds})
        write_atomically(args.output, to_jsonl(rows))  # last: make takes it for the sign that all is done
        partial.remove()
        print(f"{args.output}: {len(rows)} answers", file=sys.stderr)


def keep(rows, partial):
    """Put finished answers where no kill takes them away, or print them."""
    from lab.records import to_jsonl

    if partial:
        partial.add(rows)
    else:
        sys.stdout.write(to_jsonl(rows))
        sys.stdout.flush()


def prompts_of(asker, asked, system):
    """The token lists of `asked`. Raises one LabError that names every question which cannot be asked."""
    from lab.records import refuse

    prompts, problems = [], []
    for where, messages in asked:
        alone = messages[0]["role"] != "system"
        try:
            prompts.append(asker.prompt([*(system if alone else ()), *messages], where))
        except LabError as error:
            problems.append(str(error))
    refuse(problems)
    return prompts


def answered(args, asker, asked, prompts, first):
    """Parts of the answers' rows from number `first` on, each of a few batches, with a sign of progress."""
    from lab import models, questions

    size = stages.PARTS * args.batch_size
    for start in progress(range(first, len(asked), size), "questions"):
        places = range(start, min(start + size, len(asked)))
        drawing = {
            "samplers": [asker.sampler(place) for place in places],
            "logits_processors": [asker.processors() for _ in places],
        }
        chosen = [prompts[place] for place in places]
        limits = [asker.limit(prompt) for prompt in chosen]
        said = models.generated(asker.model, asker.tokenizer, chosen, limits, args.batch_size, **drawing)
        yield [questions.answer_row(*asked[place], *one) for place, one in zip(places, said, strict=True)]
