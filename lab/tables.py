"""A table's rows, one by one: .csv, .tsv, .jsonl or .parquet. Every fault is named by file and line.

A row is (number, cells): the line on which it begins (its place from 1 in Parquet) and its values in the order asked for:
text from .csv and .tsv, what JSON or Parquet hold otherwise. An empty list of cells is a blank line.
"""

import codecs
import csv
import math
from contextlib import suppress
from operator import itemgetter
from pathlib import Path

from lab.cli import LabError
from lab.records import json_object, nfc

SEPARATORS = {".csv": ",", ".tsv": "\t"}
KINDS = (*SEPARATORS, ".jsonl", ".parquet")
OTHER_SEPARATORS = {";": ";", "\t": "\\t", "|": "|", ",": ","}  # as --separator takes them
ENCODINGS = {"utf-8": "UTF-8", "cp949": "CP949 (EUC-KR)"}  # what Korean programs write
LARGEST_CELL = 1 << 20  # characters; a cell that is larger is a quote that was not closed
PARQUET_ROWS = 4096  # read at a time


def read_table(path, columns, encoding="utf-8", separator=None):
    """Yield (number, cells) of every row, `cells` being the values of `columns` in that order.

    Raises LabError, naming file and line: no such file, another kind of file, not `encoding`, NUL bytes, a column that is
    not there or there twice, a row of more or fewer cells, a quote that is not closed, no rows.
    """
    path, columns = Path(path), [nfc(name) for name in columns]
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise LabError(f"{path}: of no known kind; a table's name ends in {', '.join(KINDS)}")
    if path.is_dir():
        raise LabError(f"{path}: a folder; name a file in it")
    if kind == ".parquet":
        rows = _parquet(path, columns)
    elif kind == ".jsonl":
        rows = _jsonl(path, columns, encoding)
    else:
        rows = _separated(path, columns, encoding, separator or SEPARATORS[kind])
    number = 0
    try:
        for number, cells in rows:  # noqa: B007  (the number is told below)
            yield number, cells
    except OSError as error:
        raise LabError(f"{path}: cannot read ({error.strerror or error}); check the path") from error
    if not number:
        raise LabError(f"{path}: no rows under the names of its columns; add some")


def as_text(value, where):
    """A cell's text: "" for null and for what is not a number. Raises LabError for a list or an object."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, dict, bytes)):
        raise LabError(f"{where}: a cell holds a {type(value).__name__}, not text; choose another column")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _places(header, columns, where):
    """Where `columns` stand in `header`. Raises LabError for names that are missing or stand twice."""
    header = [nfc(name) for name in header]  # macOS writes Hangul decomposed
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise LabError(f"{where}: column {twice[0]!r} stands there twice; rename one")
    if missing := [name for name in columns if name not in header]:
        other = [said for sign, said in OTHER_SEPARATORS.items() if len(header) == 1 and sign in header[0]]
        remedy = f"; give the separator: --separator '{other[0]}'" if other else ""
        there = ", ".join(map(repr, header)) or "none"
        raise LabError(f"{where}: no column {', '.join(map(repr, missing))}; there are {there}{remedy}")
    return [header.index(name) for name in columns]


def _picker(places):
    """A function from a row's cells to those at `places`, as a tuple."""
    return itemgetter(*places) if len(places) > 1 else lambda cells: (cells[places[0]],)


def _separated(path, columns, encoding, separator):
    csv.field_size_limit(LARGEST_CELL)
    lines = _lines(path, encoding)
    rows = csv.reader(lines, delimiter=separator, strict=True)
    end, header, pick = 0, None, None
    try:
        for cells in rows:
            number, end = end + 1, rows.line_num
            if header is None:
                if cells:
                    header = [name.strip() for name in cells]
                    pick = _picker(_places(header, columns, f"{path}:{number}"))
            elif len(cells) == len(header):
                yield number, pick(cells)
            elif cells:
                more = "more" if len(cells) > len(header) else "fewer"
                remedy = "quote a cell that holds the separator" if more == "more" else "fill the row up"
                raise LabError(
                    f"{path}:{number}: {more} cells ({len(cells)}) than columns ({len(header)}); {remedy}"
                )
            else:
                yield number, ()
    except csv.Error as error:
        raise LabError(f"{path}:{end + 1}: {_csv_fault(str(error))}") from error
    finally:
        lines.close()  # and the file with it


def _csv_fault(error):
    if "field larger" in error:
        what = f"a cell of more than {LARGEST_CELL:,} characters"
        return (
            f"{what}, so perhaps a quote that is opened in this row and not closed; close it or shorten the cell"
        )
    if "new-line character" in error:
        return "a carriage return stands alone; quote the cell that holds it, or save the file with line ends of today"
    if "unexpected end" in error:
        return "a quote is opened in this row and not closed; close it, or double a quote that is text"
    if "expected after" in error:
        return "text behind a closing quote; double a quote that is text, or close it at the cell's end"
    return f"not a table ({error}); save it again as CSV with quotes"


def _lines(path, encoding):
    """The decoded lines of a text file with their ends. Raises LabError for bytes that are no text in `encoding`."""
    codec, empty = _codec(encoding), True
    if codec.startswith(("utf-16", "utf-32")):  # whose lines cannot be told before they are decoded
        yield from _wide_lines(path, codec)
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            empty = False
            try:
                text = line.decode("utf-8-sig" if number == 1 and codec == "utf-8" else codec)
            except UnicodeDecodeError as error:
                raise _undecodable(path, number, line, error, encoding) from error
            if "\0" in text:
                place = text.index("\0") + 1
                raise LabError(
                    f"{path}:{number}: a NUL byte (character {place}); save the file as text in UTF-8, or give --encoding utf-16"
                )
            yield text
    if empty:
        raise LabError(f"{path}:1: empty file; it needs the names of its columns and at least two rows")


def _codec(encoding):
    try:
        "a".encode(encoding)  # some codecs are none of text
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise LabError(f"--encoding {encoding}: not known; utf-8, cp949 or utf-16, say") from error


def _wide_lines(path, codec):
    number = 0
    with open(path, encoding=codec, newline="") as file:
        try:
            for number, line in enumerate(file, 1):
                yield line.removeprefix("\ufeff") if number == 1 else line  # utf-16-le leaves its mark there
        except UnicodeError as error:  # UTF-16 without its mark is a UnicodeError alone
            raise LabError(
                f"{path}:{number + 1}: not {codec.upper()} ({error}); name its right --encoding"
            ) from error


def _undecodable(path, number, line, error, encoding):
    byte, place = line[error.start], error.start + 1
    what = f"{path}:{number}: not {encoding.upper()} (byte {place} of the line is 0x{byte:02x})"
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return LabError(f"{what}; it looks like UTF-16: give --encoding utf-16 or save it as UTF-8")
    for other, name in ENCODINGS.items():
        with suppress(UnicodeDecodeError):
            if other != _codec(encoding) and any("가" <= letter <= "힣" for letter in line.decode(other)):
                return LabError(f"{what}; it reads as {name}: give --encoding {other} or save it as UTF-8")
    return LabError(f"{what}; save the file as UTF-8 or name its --encoding")


def _jsonl(path, columns, encoding):
    for number, line in enumerate(_lines(path, encoding), 1):
        row = json_object(path, number, line)
        if number == 1:
            keys = [list(row)[place] for place in _places(list(row), columns, f"{path}:{number}")]
        yield number, tuple(map(row.get, keys))


def _parquet(path, columns):
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise LabError(f"{path}: Parquet needs pyarrow; `pip install pyarrow`") from error
    number = 0
    with open(path, "rb") as file:
        try:
            table = parquet.ParquetFile(file)
            header = table.schema_arrow.names
            keys = [header[place] for place in _places(header, columns, path)]
            for batch in table.iter_batches(PARQUET_ROWS, columns=list(dict.fromkeys(keys))):
                cells = [_values(batch.column(key), f"{path}: column {key!r} after row {number}") for key in keys]
                for row in zip(*cells, strict=True):
                    number += 1
                    yield number, row
        except (pyarrow.ArrowException, OSError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise LabError(
                f"{path}: not Parquet, or damaged after row {number} ({said}); make the file again"
            ) from error


def _in_microseconds(column):
    """A column whose times Python knows: where pandas is installed, pyarrow would make nanoseconds pandas' own instead.

    Raises ValueError where a time has nanoseconds of its own.
    """
    import pyarrow
    from pyarrow import types

    if types.is_timestamp(column.type) and column.type.unit == "ns":
        return column.cast(pyarrow.timestamp("us", column.type.tz))
    if types.is_time64(column.type) and column.type.unit == "ns":
        return column.cast(pyarrow.time64("us"))
    if types.is_duration(column.type) and column.type.unit == "ns":
        return column.cast(pyarrow.duration("us"))
    return column


def _values(column, where):
    """What a Parquet column holds. Raises LabError for bytes that are no text, and times that Python does not know."""
    try:
        return _in_microseconds(column).to_pylist()
    except (ValueError, OverflowError) as error:
        raise LabError(
            f"{where}: cannot be read ({str(error).splitlines()[0]}); write it as UTF-8 text"
        ) from error
