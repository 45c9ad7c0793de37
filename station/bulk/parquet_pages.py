"""How much memory a Parquet file takes once it is inflated, from the headers of its pages.

pyarrow inflates each page to the size in that page's header; the sizes in the footer are only claims. It also aborts
the process where a column's statistics contradict its schema and the column is looked at from Python. Both headers are
structs in Thrift's compact protocol (parquet.thrift of apache/parquet-format).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmap import mmap

MOST_HEADER_BYTES = 1 << 20  # of a page; it may hold the least and the most of its values
MOST_FOOTER_BYTES = 16 << 20
_MOST_DEPTH = 12
# Fields by number: FileMetaData, RowGroup, ColumnChunk, ColumnMetaData, PageHeader.
_GROUPS, _COLUMNS, _ROWS, _META = 4, 1, 3, 3
_STORED, _FIRST, _DICTIONARY = 7, 9, 11
_PAGE_INFLATED, _PAGE_STORED = 2, 3


def inflated_groups(content: mmap) -> list[tuple[int, int]]:
    """Return the number of rows of each row group, and the bytes that its pages take. Raises ValueError."""
    length = int.from_bytes(content[-8:-4], "little")
    if len(content) < 12 or content[-4:] != b"PAR1" or not 0 < length <= min(len(content) - 8, MOST_FOOTER_BYTES):
        raise ValueError("no footer")
    footer = _Thrift(content, len(content) - 8 - length, len(content) - 8).struct()
    groups = _list(footer, _GROUPS)
    return [(_number(group, _ROWS), sum(_inflated(content, one) for one in _list(group, _COLUMNS))) for group in groups]


def _inflated(content: mmap, column: dict[int, Any]) -> int:
    meta = column.get(_META)
    if not isinstance(meta, dict):
        raise ValueError("a column without its place")
    start = min(_number(meta, _FIRST), meta.get(_DICTIONARY) or len(content))
    end, size = start + _number(meta, _STORED), 0
    if not 0 < start <= end <= len(content):
        raise ValueError("a column outside the file")
    while start < end:
        reader = _Thrift(content, start, min(end, start + MOST_HEADER_BYTES))
        header = reader.struct()
        size += _number(header, _PAGE_INFLATED)
        start = reader.position + _number(header, _PAGE_STORED)
    return size


def _number(fields: dict[int, Any], field: int) -> int:
    value = fields.get(field)
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"field {field} of a header is {str(value)[:20]}")
    return value


def _list(fields: dict[int, Any], field: int) -> list[dict[int, Any]]:
    found = fields.get(field)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"field {field} of a header is no list")
    return found


class _Thrift:
    """A reader of the compact protocol; ``position`` is the next byte. Every value takes a byte at least."""

    def __init__(self, content: mmap, start: int, end: int) -> None:
        self._content, self.position, self._end = content, start, end

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the fields up to the stop byte, by their number. Raises ValueError."""
        fields: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head > 15 else self._zigzag()
            if field in fields:  # Thrift would take the one that has the width it expects
                raise ValueError(f"a header with field {field} twice")
            kind = head & 15
            fields[field] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        match kind:
            case 1 | 2 | 3:  # in a list a truth value is a byte too
                return self._byte()
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                self._skip(8)
            case 8:
                self._skip(self._varint())
            case 9 | 10 if depth < _MOST_DEPTH:
                head = self._byte()
                count = self._varint() if head >> 4 == 15 else head >> 4
                if count > self._end - self.position:
                    raise ValueError("a list longer than its header")
                return [self._value(head & 15, depth + 1) for _ in range(count)]
            case 12 if depth < _MOST_DEPTH:
                return self.struct(depth + 1)
            case _:
                raise ValueError(f"a header with a field of type {kind}")
        return None

    def _byte(self) -> int:
        if self.position >= self._end:
            raise ValueError("a header without an end")
        self.position += 1
        return self._content[self.position - 1]

    def _skip(self, count: int) -> None:
        if count > self._end - self.position:
            raise ValueError("a header without an end")
        self.position += count

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
