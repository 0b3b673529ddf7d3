import pytest

from lab.cli import LabError
from lab.records import read_jsonl, to_jsonl, training_rows, write_jsonl


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
