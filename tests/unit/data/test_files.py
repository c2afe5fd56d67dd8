"""The small files on which readers of tables disagree: each is read as written here, or refused with a reason."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from poise import _errors
from poise.data import _table as table_module
from poise.data import as_table, read_table

TABLE = {"a": [1, 2], "b": ["x", "y"]}


def parquet(data: object) -> bytes:
    stream = io.BytesIO()
    pl.DataFrame(data).write_parquet(stream)
    return stream.getvalue()


def zipped(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, "a,b\n1,2\n")
    return stream.getvalue()


READABLE = {
    "plain": (b"a,b\n1,x\n2,y\n", TABLE),
    "no last line end": (b"a,b\n1,x\n2,y", TABLE),
    "byte order mark": (b"\xef\xbb\xbfa,b\n1,x\n2,y\n", TABLE),
    "crlf": (b"a,b\r\n1,x\r\n2,y\r\n", TABLE),
    "cr": (b"a,b\r1,x\r2,y\r", TABLE),
    "utf-16": ("a,b\n1,x\n2,ÿ€\n".encode("utf-16"), {"a": [1, 2], "b": ["x", "ÿ€"]}),
    "utf-16 big endian": (b"\xfe\xff" + "a,b\n1,x\n2,y\n".encode("utf-16-be"), TABLE),
    "semicolon": (b"a;b\n1;x\n2;y\n", TABLE),
    "tab": (b"a\tb\n1\tx\n2\ty\n", TABLE),
    "pipe": (b"a|b\n1|x\n2|y\n", TABLE),
    "comma within semicolons": (b"a;b\n1;x,x\n2;y\n", {"a": [1, 2], "b": ["x,x", "y"]}),
    "decimal comma": (b"a;b\n1,5;1.234,5\n-2,25;0,5\n", {"a": [1.5, -2.25], "b": [1234.5, 0.5]}),
    "decimal point within semicolons": (b"a;b\n1.5;1,5\n2.25;1.5\n", {"a": [1.5, 2.25], "b": ["1,5", "1.5"]}),
    "quoted newline": (b'a,b\n1,"x\nz"\n2,y\n', {"a": [1, 2], "b": ["x\nz", "y"]}),
    "quoted delimiter and quote": (b'a,b\n1,"x,""z"""\n2,y\n', {"a": [1, 2], "b": ['x,"z"', "y"]}),
    "quote inside a cell": (b'a,b\n1,5" pipe\n2,y\n', {"a": [1, 2], "b": ['5" pipe', "y"]}),
    "trailing comma": (b"a,b,\n1,x,\n2,y,\n", {**TABLE, "column_3": [None, None]}),
    "empty name": (b"a,,b\n1,2,x\n3,4,y\n", {"a": [1, 3], "column_2": [2, 4], "b": ["x", "y"]}),
    "comment lines": (b"# made today, by x\n# 2\na,b\n1,x\n2,y\n", TABLE),
    "header that looks like a comment": (b"#a,b\n1,x\n2,y\n", {"#a": [1, 2], "b": ["x", "y"]}),
    "single column": (b"a\n1\n2\n", {"a": [1, 2]}),
    "single column with a gap": (b"a\n1\n\n2\n\n", {"a": [1, None, 2]}),
    "blank lines": (b"\n\na,b\n1,x\n\n2,y\n\n\n", TABLE),
    "blanks round cells": (b" a , b\n 1 , x \n 2 , y\n", TABLE),
    "gaps": (
        b"a,b,c\nNA,,None\nN/A,?,null\n1,x,-\nnan,NaN,NULL\n",
        {
            "a": [None, None, 1, None],
            "b": [None, None, "x", None],
            "c": [None] * 4,
        },
    ),
    "leading zeros": (b"a,b\n01234,0.5\n98765,-0.25\n", {"a": ["01234", "98765"], "b": [0.5, -0.25]}),
    "infinite": (b"a,b\n1,x\ninf,y\n", {"a": [1.0, float("inf")], "b": ["x", "y"]}),
    "beyond 64 bits": (b"a,b\n1,x\n12345678901234567890,y\n", {"a": [1.0, 12345678901234567890.0], "b": ["x", "y"]}),
    "gzip": (gzip.compress(b"a,b\n1,x\n2,y\n"), TABLE),
    "gzip of two members": (gzip.compress(b"a,b\n1,x\n") + gzip.compress(b"2,y\n"), TABLE),
    "parquet": (parquet(TABLE), TABLE),
    "gzipped parquet": (gzip.compress(parquet(TABLE)), TABLE),
    "hostile names": (
        b'<b>x</b>,$\\frac$,^a$,"[/red]","{""x"":1}",\x1b[0m\n1,2,3,4,5,6\n2,3,4,5,6,7\n',
        {"<b>x</b>": [1, 2], "$\\frac$": [2, 3], "^a$": [3, 4], "[/red]": [4, 5], '{"x":1}': [5, 6], "\x1b[0m": [6, 7]},
    ),
    "lone surrogate": (
        b"\xff\xfe" + "a,\ud800\n1,x\n2,y\n".encode("utf-16-le", "surrogatepass"),
        {"a": [1, 2], "\\ud800": ["x", "y"]},
    ),
    "letters of a magic number": (b"ORCID,PAR1\n1,x\n2,y\n", {"ORCID": [1, 2], "PAR1": ["x", "y"]}),
}

REFUSED = {
    "empty": (b"", "The file is empty."),
    "only blanks": (b"\xef\xbb\xbf \r\n\n", "The file is empty."),
    "header only": (b"a,b\n", "There is a header ('a', 'b') but no rows."),
    "extra field": (b"a,b\n1,x\n2,y,z\n", "Row 2 (line 3) has 3 fields, but the header has 2."),
    "short row": (b"a,b\n1,x\n\n2\n3,z\n", "Row 2 (line 4) has 1 field, but the header has 2."),
    "short row below a cell of two lines": (b'a,b\n1,"x\nx"\n2\n', "Row 2 (line 4) has 1 field, but the header has 2."),
    "field after the last": (b"a,b\n1,x,\n2,y,\n", "Row 1 (line 2) has 3 fields, but the header has 2."),
    "open quote": (b'a,b\n1,"x\n2,y\n3,z\n4', "A quote opens in row 1 and is never closed."),
    "open quote in the header": (b'a,"b\n1,x\n2,y\n', "A quote opens in row 1 and is never closed."),
    "duplicate names": (b"a,b,a\n1,2,3\n4,5,6\n", "Column names appear more than once: 'a'."),
    "duplicate names but for blanks": (b"a,b, a\n1,2,3\n4,5,6\n", "Column names appear more than once: 'a'."),
    "html": (b"\n<!DOCTYPE html>\n<html><body>404, not found</body></html>\n", "it looks like an HTML page."),
    "xml": (b"<?xml version='1.0'?><a/>", "it looks like an XML file."),
    "json": (json.dumps([{"a": 1, "b": 2}]).encode(), "it looks like JSON."),
    "json lines": (b'{"a": 1, "b": 2}\n{"a": 2, "b": 3}\n', "it looks like JSON."),
    "zip": (zipped("table.csv"), "it looks like a zip archive."),
    "excel": (zipped("xl/workbook.xml"), "it looks like an Excel workbook."),
    "binary": (bytes(range(256)) * 8, "it looks like binary data"),
    "pickle": (b"\x80\x04\x95\x0b\x00\x00\x00", "it looks like a Python pickle"),
    "utf-16 without its mark": ("a,b\n1,x\n".encode("utf-16-le"), "it looks like binary data, or text in UTF-16"),
    "damaged utf-16": (b"\xff\xfea\x00,\x00b", "Damaged UTF-16 text."),
    "truncated gzip": (gzip.compress(os.urandom(4000))[:-900], "The gzip file is truncated."),
    "damaged gzip": (b"\x1f\x8b\x08\x00" + b"\xff" * 40, "The gzip file is damaged"),
    "gzip twice": (gzip.compress(gzip.compress(b"a,b\n1,2\n")), "A gzip file within a gzip file."),
    "truncated parquet": (parquet(TABLE)[:-50], "The Parquet file is damaged"),
    "parquet without rows": (parquet({"a": pl.Series([], dtype=pl.Int64)}), "The table has no rows."),
    "parquet with lists": (parquet({"a": [[1], [2]], "b": [1, 2]}), "Values of type List(Int64) cannot be used."),
    "cell without end": (b'a,b\n1,"' + b"x" * 200_000, "Near line 2: field larger than field limit"),
}


@pytest.mark.parametrize(("content", "expected"), READABLE.values(), ids=READABLE)
def test_file_is_read_by_its_content(content: bytes, expected: dict[str, list[object]], tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    assert read_table(path).to_dict(as_series=False) == expected


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_file_is_refused_with_its_reason(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(_errors.DataError) as caught:
        read_table(path)
    assert message in str(caught.value)
    assert caught.value.where
    assert caught.value.repair
    if not message.startswith("Values of type"):
        assert isinstance(caught.value, _errors.ReadError)
        assert caught.value.where == f"file {str(path)!r}"


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.parquet", "table.csv.gz", "table"])
@pytest.mark.parametrize("kind", ["plain", "tab", "gzip", "parquet"])
def test_the_name_does_not_matter(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(READABLE[kind][0])
    assert read_table(path).to_dict(as_series=False) == TABLE


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"a,b\n1,caf\xe9\n2,\x80\n", ["café", "€"]), (b"a,b\n1,caf\xe9\n2,\x81\n", ["café", "\x81"])],
    ids=["windows-1252", "latin-1"],
)
def test_text_that_is_not_unicode_is_read_with_a_warning(content: bytes, text: list[str], tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.warns(_errors.PoiseWarning, match="not UTF-8"):
        assert read_table(path)["b"].to_list() == text


def test_header_of_numbers_is_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"1.5,2\n3,4\n")
    with pytest.warns(_errors.PoiseWarning, match="looks like data"):
        assert read_table(path).columns == ["1.5", "2"]


def test_type_change_in_the_last_row_makes_the_whole_column_text(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n" + "".join(f"{i},1\n" for i in range(50_000)) + "late,2\n")
    table = read_table(path)
    assert table.dtypes == [pl.String, pl.Int64]
    assert table["a"].to_list() == [*map(str, range(50_000)), "late"]


def test_decimal_comma_needs_every_cell_to_allow_it(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a;b\n" + "1,5;1\n" * 1500 + "2.5;1\n")
    assert read_table(path)["a"].to_list() == ["1,5"] * 1500 + ["2.5"]


def test_quoted_newlines_survive_in_a_file_of_many_chunks(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n" + "".join(f'{i},"line\n{"," * (i % 7)}{i}"\n' for i in range(20_000)))
    table = read_table(path)
    assert table["a"].to_list() == list(range(20_000))
    assert table["b"].to_list() == [f"line\n{',' * (i % 7)}{i}" for i in range(20_000)]


def test_all_parquet_dtypes_become_one_of_few(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    data = pl.DataFrame({"n": [1.5, float("nan")], "d": [date(2020, 1, 2), None], "t": [True, None]}).with_columns(
        c=pl.Series(["x", "y"], dtype=pl.Categorical), m=pl.Series([1.25, 2.5]).cast(pl.Decimal(10, 2)), z=None
    )
    data.write_parquet(path)
    table = read_table(path)
    assert table.dtypes == [pl.Float64, pl.Date, pl.Boolean, pl.String, pl.Float64, pl.Float64]
    assert table.row(1) == (None, None, None, "y", 2.5, None)
    assert as_table(table).equals(table)


def test_missing_file_suggests_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "churn.csv").write_text("a,b\n1,2\n")
    with pytest.raises(_errors.ReadError, match=r"No such file.*Did you mean 'churn.csv'\?"):
        read_table(tmp_path / "churm.csv")
    with pytest.raises(_errors.ReadError, match="There is no folder"):
        read_table(tmp_path / "no" / "churn.csv")
    with pytest.raises(_errors.ReadError, match="cannot be read"):
        read_table("a\0b")


def test_folder_pipe_and_forbidden_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(_errors.ReadError, match="This is a folder"):
        read_table(tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(_errors.ReadError, match="This is a pipe"):
        read_table(tmp_path / "pipe.csv")
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")

    def forbidden(_: Path) -> bytes:
        raise PermissionError

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(_errors.ReadError, match="No permission"):
        read_table(path)


def test_gzip_bomb_is_noticed_before_it_bursts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 10_000_000, compresslevel=1))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(_errors.ReadError, match=r"Unpacked, it passes 2 MB.*max_memory"):
        read_table(path, max_memory=2_000_000)
    monkeypatch.setattr(table_module, "_free_memory", lambda: 2_000_000)
    with pytest.raises(_errors.ReadError, match="Unpacked, it passes 2 MB"):
        read_table(path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_table_larger_than_allowed_is_refused_before_it_is_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"table.{kind}"
    table = pl.DataFrame({"a": [1] * 100_000, "b": [2] * 100_000})
    table.write_csv(path) if kind == "csv" else table.write_parquet(path)
    assert read_table(path).equals(table)
    with pytest.raises(_errors.ReadError, match="100,000 rows of 2 columns"):
        read_table(path, max_memory=1_000_000)
    with pytest.raises(_errors.ReadError, match="do not fit 100 bytes"):
        read_table(path, max_memory=100)
    with pytest.raises(_errors.ConfigError, match="max_memory"):
        read_table(path, max_memory=0)


def test_file_is_the_same_whichever_reader_would_read_it(tmp_path: Path) -> None:
    table = pl.DataFrame({"n": [1.25, None, -3.5e300], "i": [1, None, -7], "s": ["a", None, 'say "x", y']})
    table.write_csv(tmp_path / "a.csv")
    table.write_csv(tmp_path / "b.txt", separator="|", quote_style="always", line_terminator="\r\n")
    table.write_parquet(tmp_path / "c")
    assert all(read_table(tmp_path / name).equals(table) for name in ("a.csv", "b.txt", "c"))
