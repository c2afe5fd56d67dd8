"""Text with delimiters as a table."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections import Counter, deque
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from poise._errors import PoiseWarning, ReadError
from poise._text import listed
from poise.data._cells import typed_columns
from poise.data._format import HEAD, UNICODE_MARKS

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

_NUMBER = re.compile(r"[+-]?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?")
DELIMITERS = (",", ";", "\t", "|")
MEMORY_REPAIR = "Give a smaller file, or allow more with `max_memory`."

# A view of 16 bytes for the text of a cell and 8 bytes for its number.
_CELL_BYTES = 24
_SNIFFED_RECORDS = 100


def parse_csv(content: bytes, where: str, limit: int) -> pl.DataFrame:
    """The table written in `content`, with numbers where all cells of a column are.

    Args:
        content: The file.
        where: The file's name for errors.
        limit: Bytes that may be used.

    Raises:
        ReadError: If it is not a table, or needs more memory.
    """
    content = _skip_comments(_as_utf8(content, where).lstrip(b"\n"))
    delimiter = _sniff(content)
    header, lengths, start = _measure(content, delimiter, where)
    _check_lengths(lengths, header, content, delimiter, where)
    if len(content) + lengths.size * len(header) * _CELL_BYTES > limit:
        raise ReadError(
            f"{lengths.size:,} rows of {len(header):,} columns do not fit the memory allowed.",
            where=where,
            repair=MEMORY_REPAIR,
        )
    names = _checked_names(header, where)
    table = _split_cells(content[start:], delimiter, len(names), lengths.size)
    if table is None:
        table = _split_cells(_rewrite(content, delimiter), ",", len(names), lengths.size)
    if table is None:
        raise ReadError("The quotes in it contradict each other.", where=where, repair="Write it again as CSV.")
    if len(names) > 1 and not lengths.all():
        table = table.filter(pl.Series(lengths > 0))
    columns = typed_columns(table.get_columns(), decimal_comma=delimiter == ";")
    return pl.DataFrame([column.rename(name) for column, name in zip(columns, names, strict=True)])


def _as_utf8(content: bytes, where: str) -> bytes:
    """UTF-8 without a mark, lines ended by a line feed."""
    if content.startswith(UNICODE_MARKS):
        encoding = "utf-32" if content.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")) else "utf-16"
        try:
            text = content.decode(encoding, "surrogatepass")
        except UnicodeDecodeError as error:
            raise ReadError(f"Damaged {encoding.upper()} text.", where=where, repair="Save it as UTF-8.") from error
        content = text.encode("utf-8", "backslashreplace")
    else:
        content = content.removeprefix(b"\xef\xbb\xbf")
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            content = _from_western(content, where)
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in content else content


def _from_western(content: bytes, where: str) -> bytes:
    message = f"The text in {where} is not UTF-8: it is read as Windows-1252. Save it as UTF-8 if letters are wrong."
    warnings.warn(PoiseWarning(message), stacklevel=2)
    try:
        return content.decode("cp1252").encode()
    except UnicodeDecodeError:  # five bytes have no meaning there, but have one in Latin-1
        return content.decode("latin-1").encode()


def _skip_comments(content: bytes) -> bytes:
    """Without the leading lines that begin with `#`; but `#id,age` is a header if the next line has two fields, too."""
    rest, last = content, b""
    while rest.startswith(b"#"):
        last, _, rest = rest.partition(b"\n")
    following = rest.partition(b"\n")[0]
    has_same_width = any(last.count(mark.encode()) == following.count(mark.encode()) > 0 for mark in DELIMITERS)
    return last + b"\n" + rest if has_same_width and not last.startswith(b"# ") else rest


def _reader(content: bytes, delimiter: str, *, last: str = "") -> CsvReader:
    """The records of `content`, and one more from the line `last` if that is given."""
    lines = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")
    return csv.reader(chain(lines, [last] if last else []), delimiter=delimiter)


def _sniff(content: bytes) -> str:
    """The delimiter by which most of the first records are as wide as the header; the wider the better."""
    head = content[:HEAD]
    head = head[: head.rfind(b"\n") + 1] if len(content) > HEAD and b"\n" in head else head
    head = head.decode("utf-8", "ignore").encode()

    def score(delimiter: str) -> tuple[float, int]:
        try:
            widths = [len(record) for record in islice(_reader(head, delimiter), _SNIFFED_RECORDS) if record]
        except csv.Error:
            return 0.0, 0
        if not widths or widths[0] < 2:
            return 0.0, 0
        return sum(width == widths[0] for width in widths) / len(widths), widths[0]

    return max(DELIMITERS, key=score)


def _measure(content: bytes, delimiter: str, where: str) -> tuple[list[str], NDArray[np.int64], int]:
    """The header, the number of fields of each record below it, and where these begin."""
    width = content.partition(b"\n")[0].count(delimiter.encode()) + 9
    # A last record of a width of its own: an open quote would swallow it.
    reader = _reader(content, delimiter, last=delimiter * (width - 1))
    try:
        header = next(reader, [])
        num_header_lines = reader.line_num
        lengths = np.fromiter(map(len, reader), dtype=np.int64)
    except csv.Error as error:
        raise ReadError(
            f"Near line {reader.line_num}: {error}.", where=where, repair="A quote may be open; close or remove it."
        ) from error
    if not lengths.size or lengths[-1] != width:
        row = max(int((lengths > 0).sum()), 1)
        raise ReadError(f"A quote opens in row {row} and is never closed.", where=where, repair="Close or remove it.")
    lengths = lengths[:-1]
    start = 0
    for _ in range(num_header_lines):
        start = content.find(b"\n", start) + 1 or len(content)
    if len(header) == 1:  # there a blank line is a gap, except at the end
        lengths = np.trim_zeros(lengths, "b")
    if not lengths.any():
        raise ReadError(
            f"There is a header ({listed(header)}) but no rows.", where=where, repair="Give at least two rows."
        )
    return header, lengths, start


def _check_lengths(lengths: NDArray[np.int64], header: list[str], content: bytes, delimiter: str, where: str) -> None:
    """Raise ReadError at the first record that has other than no fields (a blank line) or as many as the header."""
    bad = np.flatnonzero((lengths != len(header)) & (lengths != 0))
    if not len(bad):
        return
    first = int(bad[0])
    reader = _reader(content, delimiter)
    deque(islice(reader, first + 1), maxlen=0)
    before = reader.line_num
    next(reader)
    row = int((lengths[: first + 1] > 0).sum())
    fields = "1 field" if lengths[first] == 1 else f"{lengths[first]} fields"
    shown = {"\t": "tab"}.get(delimiter, f"'{delimiter}'")
    repair = f"Quote cells that contain the delimiter ({shown}), or complete the row."
    if reader.line_num > before + 1:
        repair += " The row spans several lines: a quote may be open."
    raise ReadError(
        f"Row {row} (line {before + 1}) has {fields}, but the header has {len(header)}.", where=where, repair=repair
    )


def _checked_names(header: list[str], where: str) -> list[str]:
    names = [name.strip() or f"column_{i}" for i, name in enumerate(header, start=1)]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ReadError(
            f"Column names appear more than once: {listed(twice)}.", where=where, repair="Rename or remove one."
        )
    if all(_NUMBER.fullmatch(name) for name in names):
        message = f"The first line of {where} looks like data; it is read as the names of the columns."
        warnings.warn(PoiseWarning(message), stacklevel=2)
    return names


def _split_cells(content: bytes, delimiter: str, width: int, num_rows: int) -> pl.DataFrame | None:
    """Every cell as text; None if the fast reader sees other rows than `csv` did, as with quotes inside a cell."""
    schema = {f"c{i}": pl.String for i in range(width)}
    try:
        table = pl.read_csv(content, has_header=False, schema=schema, separator=delimiter, infer_schema=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    if width == 1:
        table = table.head(num_rows)
    return table if table.height == num_rows else None


def _rewrite(content: bytes, delimiter: str) -> bytes:
    """The records below the header with all cells quoted properly."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows(islice(_reader(content, delimiter), 1, None))
    return text.getvalue().encode()
