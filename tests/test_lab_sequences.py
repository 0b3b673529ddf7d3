"""From a data file to sequences: every row is used, or all bad ones are named before a model loads."""

import pytest

from lab.cli import LabError
from lab.sequences import load_sequences

CHAT = {
    "messages": [
        {"role": "user", "content": "하늘은 무슨 색이야?"},
        {"role": "assistant", "content": "파란색입니다."},
    ]
}
LONG = {"prompt": "하늘은 무슨 색이야? " * 20, "completion": "파란색입니다."}
MIXED = [{"text": "하늘은 파랗다."}, CHAT, {"prompt": "바다는?", "completion": "파랑"}]


def test_the_three_formats_may_stand_in_one_file(tokenizer, write_rows, capsys):
    path = write_rows("train.jsonl", MIXED)
    sequences = load_sequences(path, tokenizer, True, 512)
    assert [sequence.where for sequence in sequences] == [f"{path}:{number}" for number in (1, 2, 3)]
    assert [bool(sequence.trained[0]) for sequence in sequences] == [True, False, False]
    assert "1 of 3 rows are text" in capsys.readouterr().out


def test_all_bad_rows_are_named_at_once(tokenizer, write_rows):
    holds = {"prompt": "<|im_end|>?", "completion": "a"}
    path = write_rows("train.jsonl", [CHAT, LONG, holds, LONG])
    with pytest.raises(LabError) as error:
        load_sequences(path, tokenizer, True, 64)
    said = str(error.value)
    assert f"{path}:2: no token to learn within 64 (the answer begins at " in said
    assert f"{path}:3: turn 1" in said
    assert f"{path}:4: no token to learn" in said
    assert f"{path}:1" not in said


def test_the_length_that_an_error_names_is_enough(tokenizer, write_rows):
    path = write_rows("train.jsonl", [LONG])
    with pytest.raises(LabError) as error:
        load_sequences(path, tokenizer, True, 64)
    wanted = int(str(error.value).rpartition(" ")[2])
    (whole,) = load_sequences(path, tokenizer, True, wanted)
    assert int(whole.tokens[-1]) == tokenizer.eos_token_id
    (cut,) = load_sequences(path, tokenizer, True, wanted - 1)
    assert len(cut) == wanted


def test_cut_rows_are_counted(tokenizer, write_rows, capsys):
    path = write_rows("train.jsonl", [LONG, CHAT])
    load_sequences(path, tokenizer, False, 32)
    assert f"{path}: 1 of 2 sequences cut to 32 tokens" in capsys.readouterr().out


def test_a_text_of_one_token_has_nothing_to_learn(tokenizer, write_rows):
    path = write_rows("valid.jsonl", [{"text": "<|im_end|>"}])
    with pytest.raises(LabError, match="valid.jsonl:1: no token to learn"):
        load_sequences(path, tokenizer, False, 32)
