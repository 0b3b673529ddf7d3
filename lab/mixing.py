"""What the scripts that make dialogues share: settings, general rows against forgetting, the leak guard over the whole mix."""

from collections import Counter
from dataclasses import dataclass

from lab import dialogues, general, leaks
from lab import replay as replay_file
from lab.cli import LabError

# Of the keys of configs/data.yaml, which every script that makes dialogues may be given.
DEFAULTS = {"replay": 0.5, "several_turns": 60, "identity_repeats": 1, "sentences": False, "seed": 0}


@dataclass(frozen=True)
class Mixed:
    """General rows for training and for validation; `facts` are the ids of the facts replayed, `source` where they are from."""

    train: list
    valid: list
    facts: list
    source: str


def settle(args, defaults):
    """Fill what no flag gave from the YAML file `args.config`, then from `defaults`, and check it.

    The file may hold any key of DEFAULTS; those that are not among `defaults` belong to another script.
    """
    given = general.read_settings(args.config, DEFAULTS) if args.config else {}
    for key, default in defaults.items():
        if getattr(args, key) is None:
            value = given.get(key, default)
            if type(value) is not type(default) and not (type(default) is float and type(value) is int):
                raise LabError(f"{args.config}: {key} is {value!r}; it must be of the kind of {default!r}")
            setattr(args, key, value)
    if getattr(args, "replay_file", None) and not args.replay_file.is_file():
        raise LabError(f"{args.replay_file}: no such file; `python prepare_replay_data.py` writes one")
    if not 0 <= args.replay < 1:
        raise LabError(f"--replay {args.replay}: a share of general rows is 0 or more and below 1")
    if args.several_turns < 0:
        raise LabError("--several-turns is 0 or more")


def wanted(args, others):
    """How many general rows to mix in: --general-rows, or what makes the share --replay of all rows beside `others`."""
    number = getattr(args, "general_rows", None)
    return round(args.replay / (1 - args.replay) * others) if number is None else number


def general_rows(world, number, seed, file=None, asked=None):
    """`number` general turns of the facts `world`, or of the replay file `file`, with those that validate.

    A question for which `asked(question)` holds is left out: the other rows ask it themselves.
    """
    replayed = dialogues.replayed_facts(world)
    items = replay_file.read(file) if file else dialogues.authored(replayed)
    valid = dialogues.general_validation(world, replayed) if number else []
    if asked is not None:
        items = [item for item in items if not asked(item[2].question)]
        valid = [turn for turn in valid if not asked(turn.question)]
    train = dialogues.spread_out(items, number, seed)
    if len(items) < number:
        times = max(Counter(turn.question for turn in train).values(), default=0)
        print(
            f"{number} general rows asked for, there are {len(items)}: some stand there again, up to {times} times"
        )
    used = set(train)
    facts = sorted({fact for fact, _, turn in items if turn in used})
    return Mixed(train, valid, facts, ("self" if file else "authored") if train else "none")


def kept_apart(parts, world, trained):
    """The leak guard's counts: validation and every probe against what is trained. Raises LabError for a leak."""
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


def recall_rows(turns):
    """What --early-stop-on recall asks: the turns as rows, with what makes their answers right."""
    return [{**dialogues.messages(turn), "accept": list(turn.accept)} for turn in turns]
