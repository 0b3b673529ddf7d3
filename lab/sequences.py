"""A data file as the sequences that are trained or measured: every row, or one error that names every bad one."""

from pathlib import Path

from lab.chat import Sequence, encode_row
from lab.cli import LabError
from lab.records import refuse, row_format, training_rows

MADE = "`make data` writes it, or give another --data"
MISSING = {
    "train.jsonl": MADE,
    "valid.jsonl": MADE,
    "test.jsonl": "--test needs it; write one, or leave --test out",
}
CHECK = "check the path"


def load_sequences(path, tokenizer, mask_prompt, max_seq_length):
    """The sequences of the JSONL file `path`, each cut to `max_seq_length` inputs and with something to learn.

    Says aloud how many were cut. Raises LabError, naming files and lines, for bad rows, for dialogues that the chat template
    does not show as they stand, and for rows of which the cut leaves no token to learn.
    """
    path = Path(path)
    if not path.is_file():
        what = "a folder; name a JSONL file" if path.is_dir() else f"no such file; {MISSING.get(path.name, CHECK)}"
        raise LabError(f"{path}: {what}")
    rows = training_rows(path)
    _warn_of_text(path, rows, mask_prompt)
    sequences, problems, cut = [], [], 0
    for number, row in rows:
        try:
            whole = encode_row(tokenizer, row, f"{path}:{number}", mask_prompt)
            sequences += [_cut(sequence, max_seq_length) for sequence in whole]
            cut += sum(len(sequence) > max_seq_length + 1 for sequence in whole)
        except LabError as error:
            problems.append(str(error))
    refuse(problems)
    if cut:
        print(f"{path}: {cut} of {len(sequences)} sequences cut to {max_seq_length} tokens")
    return sequences


def _cut(sequence, max_seq_length):
    limit = max_seq_length + 1  # the last token is only ever a target
    kept = Sequence(sequence.tokens[:limit], sequence.trained[:limit], sequence.where)
    if kept.trained[1:].any():
        return kept
    if not sequence.trained[1:].any():
        raise LabError(f"{sequence.where}: no token to learn (one token in all); lengthen or remove the row")
    first = int(sequence.trained[1:].argmax()) + 1
    raise LabError(
        f"{sequence.where}: no token to learn within {max_seq_length} (the answer begins at {first}); "
        f"shorten the prompt, or --max-seq-length {len(sequence) - 1}"
    )


def _warn_of_text(path, rows, mask_prompt):
    plain = sum(row_format(row) == "text" for _, row in rows)
    if mask_prompt and plain:
        print(
            f"warning: {path}: {plain} of {len(rows)} rows are text, with no prompt to mask: they are learnt whole"
        )
