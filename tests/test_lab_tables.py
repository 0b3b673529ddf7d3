"""lab/tables: rows out of CSV, TSV, JSONL and Parquet, and one clear line for each fault."""

import json

import pytest

from lab.cli import LabError
from lab.tables import as_text, read_table

HEAD = "질문,답변\n"


@pytest.fixture
def table(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def read(path, columns=("질문", "답변"), **more):
    return list(read_table(path, list(columns), **more))


def test_cells_are_given_in_the_order_asked_for_with_the_line_on_which_the_row_begins(table):
    path = table("a.csv", '\ufeff답변,"질문",수\n"두\n줄","말 ""하기"" , 쉼표",1\n\n나,가,2\n')
    assert read(path) == [(2, ('말 "하기" , 쉼표', "두\n줄")), (4, ()), (5, ("가", "나"))]
    assert read(path, ["수"])[0] == (2, ("1",))
    assert read(table("a.tsv", "질문\t답변\r\n가, 나\t다\r\n")) == [(2, ("가, 나", "다"))]
    assert read(table("b.csv", "질문;답변\n가;나\n"), separator=";") == [(2, ("가", "나"))]


def test_values_of_json_stay_what_they_are(table):
    rows = [
        {"질문": "가", "답변": 3},
        {"답변": None, "질문": "나"},
        {"질문": "다"},
        {"질문": ["라"], "답변": True},
    ]
    path = table("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert read(path) == [(1, ("가", 3)), (2, ("나", None)), (3, ("다", None)), (4, (["라"], True))]
    assert [as_text(value, "x") for value in (3, 2.5, None, float("nan"), True, "가")] == [
        *("3", "2.5", "", "", "true", "가")
    ]
    with pytest.raises(LabError, match=r"a.jsonl:4: a cell holds a list, not text; choose another column"):
        as_text(["라"], "a.jsonl:4")


def test_columns_written_decomposed_are_found(table):
    import unicodedata

    path = table("a.csv", unicodedata.normalize("NFD", HEAD) + "가,나\n")
    assert read(path) == [(2, ("가", "나"))]
    path = table("a.jsonl", json.dumps({unicodedata.normalize("NFD", "질문"): "가"}) + "\n")
    assert read(path, ["질문"]) == [(1, ("가",))]


def test_a_mark_of_utf_16_is_no_part_of_the_first_name(table):
    path = table("a.csv", f"\ufeff{HEAD}각하,똠방\n".encode("utf-16-le"))
    assert read(path, encoding="utf-16-le") == [(2, ("각하", "똠방"))]


@pytest.mark.parametrize("encoding", ["hex", "rot13", "undefined", "a\0b"])
def test_an_encoding_that_is_none_of_text_is_refused(table, encoding):
    with pytest.raises(LabError, match=r"--encoding .*: not known; utf-8, cp949 or utf-16, say"):
        read(table("a.csv", f"{HEAD}가,나\n"), encoding=encoding)


def test_other_encodings_are_read_when_they_are_named(table):
    for encoding in ("cp949", "utf-16", "utf-8-sig"):
        assert read(table("a.csv", f"{HEAD}각하,똠방\n".encode(encoding)), encoding=encoding) == [
            (2, ("각하", "똠방"))
        ]


FAULTS = {
    "cp949.csv": (
        f"{HEAD}한글,나\n".encode("cp949"),
        r"cp949.csv:1: not UTF-8 \(byte 1 of the line is 0xc1\); it reads as "
        r"CP949 \(EUC-KR\): give --encoding cp949 or save it as UTF-8",
    ),
    "later.csv": (f"{HEAD}가,나\n".encode() + "다,한글\n".encode("cp949"), r"later.csv:3: not UTF-8 \(byte 1 of"),
    "broken.csv": (
        f"{HEAD}가,\n".encode() + b"a,\xff\xff\n",
        r"broken.csv:3: not UTF-8 \(byte 3 of the line is 0xff\); save",
    ),
    "wide.csv": (
        f"{HEAD}가,나\n".encode("utf-16"),
        r"wide.csv:1: not UTF-8 .*looks like UTF-16: give --encoding utf-16",
    ),
    "nul.csv": (f"{HEAD}가,나\0다\n", r"nul.csv:2: a NUL byte \(character 4\); save the file as text in UTF-8"),
    "missing.csv": ("물음,답변\n가,나\n", r"missing.csv:1: no column '질문'; there are '물음', '답변'$"),
    "semicolon.csv": ("질문;답변\n가;나\n", r"there are '질문;답변'; give the separator: --separator ';'$"),
    "tab.csv": ("질문\t답변\n가\t나\n", r"there are '질문\\t답변'; give the separator: --separator '\\t'$"),
    "one.csv": ("물음\n가\n", r"one.csv:1: no column '질문', '답변'; there are '물음'$"),
    "mac.csv": (
        f"{HEAD}가,나\n".replace("\n", "\r"),
        r"mac.csv:1: a carriage return stands alone; quote the cell",
    ),
    "inside.csv": (f"{HEAD}가,나\n다,라\r마\n", r"inside.csv:3: a carriage return stands alone"),
    "twice.csv": ("질문,답변,답변\n가,나,다\n", r"twice.csv:1: column '답변' stands there twice; rename one"),
    "more.csv": (f"{HEAD}가,나\n다,라,마\n", r"more.csv:3: more cells \(3\) than columns \(2\); quote a cell"),
    "fewer.csv": (
        f'{HEAD}"두\n줄",나\n다\n',
        r"fewer.csv:4: fewer cells \(1\) than columns \(2\); fill the row up",
    ),
    "quote.csv": (f'{HEAD}가,나\n"다,라\n마,바\n', r"quote.csv:3: a quote is opened in this row and not closed"),
    "quote2.csv": (f'{HEAD}"가,나\n"다",라\n', r"quote2.csv:2: text behind a closing quote"),
    "long.csv": (
        f'{HEAD}가,나\n"다,라\n' + "마,바\n" * 300_000,
        r"long.csv:3: a cell of more than 1,048,576 characters, so perhaps a quote that is opened in this row",
    ),
    "empty.csv": ("", r"empty.csv:1: empty file"),
    "header.csv": (HEAD, r"header.csv: no rows under the names of its columns"),
    "empty.jsonl": ("", r"empty.jsonl:1: empty file"),
    "bad.jsonl": ('{"질문": "가", "답변": "나"}\n{"질문": \n', r"bad.jsonl:2: not valid JSON"),
    "list.jsonl": ('["가"]\n', r"list.jsonl:1: expected a JSON object, found list"),
    "digits.jsonl": (f'{{"질문": {"1" * 5000}}}\n', r"digits.jsonl:1: not valid JSON \(Exceeds"),
    "keys.jsonl": ('{"q": "가"}\n', r"keys.jsonl:1: no column '질문', '답변'; there are 'q'"),
    "table.xlsx": ("PK", r"table.xlsx: of no known kind; a table's name ends in .csv, .tsv, .jsonl, .parquet"),
    "none": ("가", r"none: of no known kind"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_one_line_with_its_place(table, name):
    content, message = FAULTS[name]
    with pytest.raises(LabError, match=message) as caught:
        read(table(name, content))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(LabError, match=r"folder.csv: a folder; name a file in it"):
        read(tmp_path / "folder.csv")
    with pytest.raises(LabError, match=r"gone.csv: cannot read \(No such file or directory\); check the path"):
        read(tmp_path / "gone.csv")
    (tmp_path / "a.csv").write_text(HEAD, encoding="utf-8")
    with pytest.raises(LabError, match=r"--encoding utf-99: not known"):
        read(tmp_path / "a.csv", encoding="utf-99")
    with pytest.raises(LabError, match=r"a.csv:1: not UTF-16 \(.*\); name its right --encoding"):
        read(tmp_path / "a.csv", encoding="utf-16")


def test_parquet_rows_and_faults(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    columns = {"질문": ["가", None, "다"] * 3000, "수": [1, 2, None] * 3000, "목록": [[1], [2], [3]] * 3000}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=1000)
    rows = read(path, ["수", "질문", "수"])
    assert len(rows) == 9000 and rows[:3] == [(1, (1, "가", 1)), (2, (2, None, 2)), (3, (None, "다", None))]
    with pytest.raises(LabError, match=r"a.parquet: no column '답변'; there are '질문', '수', '목록'"):
        read(path)
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-100], whole[:200] + b"\xff" * 400 + whole[600:]):
        path.write_bytes(content)
        with pytest.raises(
            LabError, match=r"a.parquet: not Parquet, or damaged after row \d+ \(.*\); make the file again"
        ) as e:
            read(path, ["질문"])
        assert "\n" not in str(e.value)
    parquet.write_table(pyarrow.table({"질문": pyarrow.array([], pyarrow.string())}), path)
    with pytest.raises(LabError, match=r"a.parquet: no rows"):
        read(path, ["질문"])


def test_what_a_parquet_column_holds_may_be_no_text_nor_time(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    korean = pyarrow.array(["가".encode("cp949"), b"b"])
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 2, korean.buffers())
    path, moments = tmp_path / "a.parquet", pyarrow.array([1, 2], pyarrow.timestamp("ns"))
    parquet.write_table(pyarrow.table({"질문": broken, "때": moments}), path)
    for name in ("질문", "때"):
        with pytest.raises(
            LabError,
            match=rf"a.parquet: column '{name}' after row 0: cannot be read \(.*\); write it as UTF-8 text",
        ):
            read(path, [name])


def test_times_are_read_alike_with_and_without_pandas(tmp_path):
    """Where pandas is installed pyarrow gives its Timestamps for nanoseconds; without it, an error for some of them."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    columns = {"때": pyarrow.array([1_000_000_000, 2_000], pyarrow.timestamp("ns"))}
    parquet.write_table(
        pyarrow.table({**columns, "길이": pyarrow.array([3_000, 4_000], pyarrow.duration("ns"))}), path
    )
    moments, lengths = ([row[1][0] for row in read(path, [name])] for name in ("때", "길이"))
    assert [type(value).__module__ for value in (*moments, *lengths)] == ["datetime"] * 4
