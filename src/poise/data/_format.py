"""What a file holds, told by its first bytes."""

from __future__ import annotations

import re

from poise._errors import ReadError

HEAD = 1 << 16
UNICODE_MARKS = (b"\xff\xfe", b"\xfe\xff")

_SPREADSHEET = "Save the sheet as CSV and give that file."
_UNPACK = "Unpack it and give the table inside."
_TABLE = "Give a CSV, TSV or Parquet file."
_KNOWN = (
    (b"PARE", "an encrypted Parquet file", "Write it without encryption."),
    (b"PK\x03\x04", "a zip archive", _UNPACK),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", _SPREADSHEET),
    (b"%PDF", "a PDF", _TABLE),
    (b"SQLite format 3", "an SQLite database", "Export the table as CSV."),
    (b"ARROW1", "a Feather (Arrow) file", "Write it as Parquet."),
    (b"ORC", "an ORC file", "Write it as Parquet."),
    (b"\x89HDF", "an HDF5 file", "Write the table as Parquet."),
    (b"\x93NUMPY", "a numpy file", "Load it with numpy and give the array."),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ", "an xz archive", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"\x89PNG", "a picture", _TABLE),
    (b"\xff\xd8\xff", "a picture", _TABLE),
    (b"\x80\x04\x95", "a Python pickle, which is never opened since it may run code", "Write the table as Parquet."),
)
_HTML = re.compile(rb"\s*<(!doctype|html|head|body|!--)", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml", re.IGNORECASE)
_JSON = re.compile(rb'\s*(\{\s*("(?:[^"\\\n]|\\.)*"\s*:|\}\s*$)|\[\s*([\[{]|\]\s*$))')
_MARKUP = (
    (_HTML, "an HTML page", "Download the data itself; the address may have led to an error page."),
    (_XML, "an XML file", _TABLE),
    (_JSON, "JSON", "Convert it to CSV or Parquet."),
)
_CONTROL = bytes(code for code in range(32) if code not in b"\t\n\v\f\r\x1b")


def format_of(content: bytes, where: str) -> str:
    """Say whether it is "gzip", "parquet" or "text".

    Raises:
        ReadError: If the content is of another kind that is known, or binary, or there is none.
    """
    head = content[:HEAD]
    if not head.strip(b" \t\r\n\xef\xbb\xbf"):
        raise ReadError("The file is empty.", where=where, repair=_TABLE)
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"PAR1") and len(content) > 8:
        return "parquet"
    looks, repair = _foreign_kind(head)
    if looks:
        raise ReadError(f"This is no table; it looks like {looks}.", where=where, repair=repair)
    return "text"


def _foreign_kind(head: bytes) -> tuple[str, str]:
    """What `head` looks like if not like text of a table, and what to do; ("", "") if it does."""
    if head.startswith(b"PK\x03\x04") and b"xl/" in head:
        return "an Excel workbook", _SPREADSHEET
    for magic, name, repair in _KNOWN:
        # Letters may also begin a header; the rest of such a file is then text.
        if head.startswith(magic) and (not magic.isalnum() or _is_binary(head)):
            return name, repair
    text = head.removeprefix(b"\xef\xbb\xbf")
    for pattern, name, repair in _MARKUP:
        if pattern.match(text):
            return name, repair
    if not head.startswith(UNICODE_MARKS) and _is_binary(head):
        return "binary data, or text in UTF-16 without its mark", "Give a table, or save the text as UTF-8."
    return "", ""


def _is_binary(head: bytes) -> bool:
    num_control = len(head) - len(head.translate(None, _CONTROL))
    return b"\x00" in head or num_control > len(head) / 10
