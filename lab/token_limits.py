"""How long answers may be, in tokens, by what is asked and how large the model is."""

from lab.cli import read_json
from lab.hub import SMALL_HIDDEN, model_folder

FLAGS = {
    "max_tokens": "chat answer",
    "completion_tokens": "continuation",
    "program_tokens": "program answer",
}
# The embedded model's answers are one sentence, its program 250 tokens; where it babbles, more would only take longer.
SMALL_MODEL = {"max_tokens": 64, "completion_tokens": 48, "program_tokens": 320}
LARGE_MODEL = {
    "max_tokens": 512,
    "completion_tokens": 64,
    "program_tokens": 1536,
}  # explanations around the code, too


def helps():
    """{flag of the command line: its help}."""
    return {
        f"--{flag.replace('_', '-')}": (
            f"longest {what}, in tokens ({LARGE_MODEL[flag]}; {SMALL_MODEL[flag]} for an embedded model)"
        )
        for flag, what in FLAGS.items()
    }


def settle(args):
    """Give the token limits that no flag gave the values that fit the model's size; a command may lack such flags."""
    config = read_json(model_folder(args.model) / "config.json", "convert the model again")
    small = config.get("hidden_size", 0) <= SMALL_HIDDEN
    for flag, limit in (SMALL_MODEL if small else LARGE_MODEL).items():
        if getattr(args, flag, limit) is None:
            setattr(args, flag, limit)
