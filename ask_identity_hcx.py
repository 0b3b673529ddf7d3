"""Who does the model say it is?  python ask_identity_hcx.py --adapter-path base sft=adapters_solverx_sft_hcx

Right is an answer that names HyperCLOVA X and NAVER, and neither OpenAI nor ChatGPT. With questions of your
own the answers are printed and not judged; they stand before the flags:

  python ask_identity_hcx.py "너는 누구니?" "Who are you?" --adapter-path base

Exit codes: 0 asked, 1 bad input, 2 bad usage.
"""

import sys

from lab import stages
from lab.cli import finish, write_summary


def parse_args(argv):
    parser = stages.command_parser(__doc__)
    parser.add_argument("questions", nargs="*", help="questions of your own, before the flags")
    stages.add_model_flags(parser)
    stages.add_probe_flags(parser, show=5)
    return parser.parse_args(argv)


def ask(args):
    """Ask every stage the user's questions and print the answers."""
    named = stages.stages_of(args)
    model, tokenizer = stages.load_model(args)
    from lab import models

    answers = {}
    for stage in named:
        models.switch_adapter(model, stage.adapter)
        said = models.answer(model, tokenizer, args.questions, args.max_tokens, args.batch_size)
        for question, answer in zip(args.questions, said, strict=True):
            print(f"{stage.name}: {question}\n  {answer}")
        answers[stage.name] = said
    if args.output:
        write_summary(args.output, args, stages.model_files(args, named), {"answers": answers})


def main(argv=None):
    args = parse_args(argv)
    if args.questions:
        ask(args)
    else:
        stages.verify(args, ("identity",))
    return 0


if __name__ == "__main__":
    sys.exit(finish(main))
