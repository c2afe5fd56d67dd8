"""Reading a table from a file, by what the file holds and not by what it is called."""

from __future__ import annotations

import difflib
import io
import os
import stat
import zlib
from pathlib import Path

import polars as pl

from poise._checks import Interval, check_integer
from poise._errors import ReadError
from poise.data._csv import MEMORY_REPAIR, parse_csv
from poise.data._format import format_of
from poise.data._frame import as_table

_CHUNK = 1 << 20
_FREE_SHARE = 0.75
_FALLBACK_MEMORY = 4 << 30
_VIEW_BYTES = 16


def read_table(path: str | Path, *, max_memory: int | None = None) -> pl.DataFrame:
    r"""Read a CSV, TSV or Parquet file, which may be gzipped.

    What the file is, its encoding (UTF-8, or UTF-16 with its mark, else Windows-1252 with a warning), its delimiter
    (`,` `;` tab `|`) and its line ends are found out from its content. The first line names the columns; lines before
    it that begin with `#` are skipped, and a column without a name becomes `column_3`. Blanks around cells are
    removed. These cells are gaps: empty, `NA`, `N/A`, `NaN`, `nan`, `null`, `NULL`, `None`, `?`, `-`. A column
    becomes numbers only if all its other cells are numbers and none has a leading zero, as `01234`; in a file with
    `;` they may have a decimal comma. All other columns stay text.

    Args:
        path: The file.
        max_memory: Bytes that reading may take, ≥ 1; None for 75 % of what is free.

    Raises:
        ReadError: If the file cannot be read as a table, or needs more memory than allowed; the message says what it
            looks like, or names the row (the first below the header is row 1) or the column.

    Warns:
        PoiseWarning: If the text is not Unicode, or the first line looks like data.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "small.csv")
        ...     _ = path.write_text("age;zip\n31;01234\n?;98765\n")
        ...     read_table(path).rows()
        [(31, '01234'), (None, '98765')]
    """
    if max_memory is not None:
        check_integer("max_memory", max_memory, Interval(1))
    limit = max_memory or _free_memory()
    where = f"file {os.fspath(path)!r}"
    content = _read_bytes(Path(path), where, limit)
    kind = format_of(content, where)
    if kind == "gzip":
        content = _unzip(content, where, limit)
        kind = format_of(content, where)
    if kind == "gzip":
        raise ReadError("A gzip file within a gzip file.", where=where, repair="Unpack it once.")
    return _read_parquet(content, where, limit) if kind == "parquet" else parse_csv(content, where, limit)


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return _FALLBACK_MEMORY
    return int(kilobytes * 1024 * _FREE_SHARE)


def _read_bytes(path: Path, where: str, limit: int) -> bytes:
    try:
        problem, repair = _problem_with(path.stat(), limit)
        content = b"" if problem else path.read_bytes()
    except FileNotFoundError as error:
        raise ReadError("No such file.", where=where, repair=_suggestion(path)) from error
    except PermissionError as error:
        raise ReadError("No permission to read it.", where=where, repair="Change its permissions.") from error
    except (OSError, ValueError) as error:
        raise ReadError(f"It cannot be read: {error}.", where=where, repair="Check the path and the disk.") from error
    if problem:
        raise ReadError(problem, where=where, repair=repair)
    return content


def _problem_with(status: os.stat_result, limit: int) -> tuple[str, str]:
    """What forbids to read what has this `status`, and the repair; ("", "") for nothing."""
    if stat.S_ISDIR(status.st_mode):
        return "This is a folder, not a file.", "Name one file in it."
    if not stat.S_ISREG(status.st_mode):
        return "This is a pipe or device, not a file.", "Save the data as a file."
    if status.st_size > limit:
        return f"{_size(status.st_size)} do not fit {_size(limit)}.", MEMORY_REPAIR
    return "", ""


def _suggestion(path: Path) -> str:
    try:
        names = sorted(one.name for one in path.parent.iterdir())
    except OSError:
        return f"There is no folder {str(path.parent)!r}."
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {close[0]!r}?" if close else "Check the path."


def _unzip(content: bytes, where: str, limit: int) -> bytes:
    """The gzip members of `content`, unpacked piece by piece so that a bomb is noticed before it bursts."""
    unpacked, rest = io.BytesIO(), content
    try:
        while rest.startswith(b"\x1f\x8b"):
            stream = zlib.decompressobj(wbits=31)
            waiting = rest
            while not stream.eof:
                piece = stream.decompress(waiting, _CHUNK)
                waiting = stream.unconsumed_tail
                if not piece and not waiting and not stream.eof:
                    raise ReadError("The gzip file is truncated.", where=where, repair="Copy or download it again.")
                unpacked.write(piece)
                if unpacked.tell() > limit:
                    raise ReadError(f"Unpacked, it passes {_size(limit)}.", where=where, repair=MEMORY_REPAIR)
            rest = stream.unused_data
    except zlib.error as error:
        raise ReadError(f"The gzip file is damaged: {error}.", where=where, repair="Download it again.") from error
    return unpacked.getvalue()


def _read_parquet(content: bytes, where: str, limit: int) -> pl.DataFrame:
    try:
        kinds = pl.read_parquet_schema(io.BytesIO(content))
        num_rows = int(pl.scan_parquet(io.BytesIO(content)).select(pl.len()).collect().item())
        # The sizes in a Parquet footer may be wrong by any factor; rows times columns are not.
        needed = num_rows * len(kinds) * _VIEW_BYTES
        if needed > limit:
            raise ReadError(
                f"{num_rows:,} rows of {len(kinds):,} columns need about {_size(needed)}, which do not fit "
                f"{_size(limit)}.",
                where=where,
                repair=MEMORY_REPAIR,
            )
        table = pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReadError(
            f"The Parquet file is damaged or of a kind that cannot be read: {reason}.",
            where=where,
            repair="Write it again.",
        ) from error
    if table.height == 0:
        raise ReadError("The table has no rows.", where=where, repair="Give at least two rows.")
    return as_table(table, name=where)


def _size(num_bytes: int) -> str:
    value, units = float(num_bytes), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"
