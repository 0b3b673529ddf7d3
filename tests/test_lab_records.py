import pytest

from lab.cli import LabError
from lab.records import read_jsonl, read_lines, row_format, to_jsonl, training_rows, write_jsonl


def test_rows_come_back_in_nfc(tmp_path):
    decomposed, composed = "\u1100\u1161\u11a8", "\uac01"
    write_jsonl(tmp_path / "a.jsonl", [{"text": decomposed}])
    assert read_jsonl(tmp_path / "a.jsonl") == [(1, {"text": composed})]
    assert composed in to_jsonl([{"text": decomposed}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: empty file"),
        (b'{"text": "a"}\n\n{"text": "b"}\n', ":2: blank line"),
        (b'{"text": "a"}\n{"text": \n', ":2: not valid JSON"),
        (b'{"text": "a"}\n["b"]\n', ":2: expected a JSON object, found list"),
        ('{"text": "가"}\n'.encode("cp949"), ":1: not UTF-8"),
        (b'{"text": "a"}\n{"text": "\\uD83D"}\n', ":2: half a character"),
        (b"[" * 100_000 + b"\n", ":1: "),
    ],
)
def test_faults_are_named_by_file_and_line(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(LabError) as error:
        read_jsonl(path)
    assert f"{path}{message}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"txt": "a"}, 'no "text"'),
        ({"text": "  "}, '"text" is empty'),
        ({"prompt": "a"}, 'no "completion"'),
        ({"messages": []}, "not a list of turns"),
        ({"messages": [{"role": "bot", "content": "a"}]}, "turn 1 has no role"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no assistant turn"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]},
            "turn 2 has no content",
        ),
        ({"completion": "a"}, 'no "prompt"'),
        ({"prompt": [], "completion": "a"}, '"prompt" is empty or not a string'),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "content that is not a string but list"),
        ({"messages": [{"role": "user", "content": None}]}, "turn 1 has no content"),
        ({"messages": [{"role": "user", "content": "a", "tool_calls": [{}]}]}, "turn 1 has tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "turn 1 has tool_calls"),
        ({"prompt": "a", "completion": "b", "tools": [{"type": "function"}]}, '"tools" is not a list'),
    ],
)
def test_a_row_that_cannot_be_trained_is_named(write_rows, row, message):
    path = write_rows("train.jsonl", [{"text": "좋다"}, row])
    with pytest.raises(LabError) as error:
        training_rows(path)
    assert f"{path}:2:" in str(error.value)
    assert message in str(error.value)


def test_a_byte_order_mark_is_accepted(tmp_path):
    (tmp_path / "bom.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n')
    assert read_jsonl(tmp_path / "bom.jsonl") == [(1, {"text": "a"})]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    import os

    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"text": "old"}])

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(LabError, match="No space left"):
        write_jsonl(path, [{"text": "new"}])
    assert read_jsonl(path) == [(1, {"text": "old"})]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a"},
        {"prompt": "a", "completion": "b"},
        {"messages": [{"role": "system", "content": ""}, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}]},
        {"messages": [{"role": "tool", "content": ""}, {"role": "assistant", "content": "a"}]},
        {"text": "\U0001f642", "tools": None},
    ],
)
def test_rows_that_can_be_trained(write_rows, row):
    assert training_rows(write_rows("train.jsonl", [row])) == [(1, row)]


def test_a_pair_of_surrogates_is_a_character(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\\ud83d\\ude42"}\n')
    assert read_jsonl(tmp_path / "a.jsonl") == [(1, {"text": "\U0001f642"})]


def test_every_bad_row_is_named_up_to_ten(write_rows):
    path = write_rows("train.jsonl", [{"text": "a"}, *[{"text": ""}] * 12])
    with pytest.raises(LabError) as error:
        training_rows(path)
    said = str(error.value)
    assert [f"{path}:{number}:" in said for number in (1, 2, 11, 12)] == [False, True, True, False]
    assert said.endswith("and 2 more such rows")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "a", "completion": "b", "messages": []}, "completion"),
        ({"prompt": "a", "messages": [], "text": "b"}, "messages"),
        ({"prompt": "a", "text": "b"}, "text"),
    ],
)
def test_a_row_with_several_keys_is_read_as_mlx_lm_reads_it(row, kind):
    assert row_format(row) == kind


def test_lines_of_a_text_file_are_counted_as_editors_count_them(tmp_path):
    path = tmp_path / "q.txt"
    path.write_bytes("\ufeff\u1100\u1161\u11a8\r\n하나\u2028둘\n\n끝".encode())
    assert read_lines(path) == ["\uac01", "하나\u2028둘", "", "끝"]
    for content, message in ((b"", ":1: empty file"), (b"ok\n\xff\n", ":2: not UTF-8")):
        path.write_bytes(content)
        with pytest.raises(LabError) as error:
            read_lines(path)
        assert str(error.value).startswith(f"{path}{message}")
