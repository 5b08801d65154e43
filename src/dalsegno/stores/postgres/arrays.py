"""Columns of values as arrays of PostgreSQL: one parameter for as many rows as a commit has.

A client's time a row is what counts (docs/decisions/0006), so whole columns are written with one call each wherever
their values allow it. Bytes go as one blob, with the place and length of each part.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate

#: a parameter, and whether it is in the wire's text (0) or binary (1) form
Parameter = tuple[bytes, int]

_TEXT_OID = 25
_NULL = struct.pack("!i", -1)
_length = struct.Struct("!i").pack
_header = struct.Struct("!iiIii").pack


def integers(values: Sequence[int | None]) -> Parameter:
    """A column of numbers.

    >>> integers([1, None, 3])
    (b'{1, NULL, 3}', 0)
    """
    return b"{%b}" % str(values if type(values) is list else list(values))[1:-1].replace("None", "NULL").encode(), 0


def texts(values: Sequence[str | None]) -> Parameter:
    """A column of texts.

    >>> texts(["a", "b"])
    (b'{"a","b"}', 0)
    >>> texts([None, None])
    (b'{NULL,NULL}', 0)
    """
    if not any(values):
        if all(value is None for value in values):
            return b"{%b}" % b",".join([b"NULL"] * len(values)), 0
        return _packed_texts(values)
    try:
        joined = '","'.join(values)  # type: ignore[arg-type]  # a None is what the except is for
    except TypeError:
        return _packed_texts(values)
    if "\\" in joined or "\x00" in joined or joined.count('"') != 2 * len(values) - 2:
        return _packed_texts(values)
    return b'{"%b"}' % joined.encode(), 0


def _packed_texts(values: Iterable[str | None]) -> Parameter:
    parts: list[bytes] = []
    count = 0
    for value in values:
        count += 1
        if value is None:
            parts.append(_NULL)
        else:
            data = storable(value).encode()
            parts += (_length(len(data)), data)
    return _header(1, 1, _TEXT_OID, count, 1) + b"".join(parts), 1


def blob(parts: Sequence[bytes]) -> tuple[Parameter, Parameter, Parameter]:
    """Where each part begins, how long it is, and all of them.

    >>> blob([b"ab", b"", b"c"])
    ((b'{1, 3, 3}', 0), (b'{2, 0, 1}', 0), (b'abc', 1))
    """
    lengths = list(map(len, parts))
    firsts = list(accumulate(lengths, initial=1))
    firsts.pop()
    return integers(firsts), integers(lengths), (b"".join(parts), 1)


def storable(text: str) -> str:
    """A text without what PostgreSQL's texts can't hold: the character NUL becomes its picture."""
    return text.replace("\x00", "\u2400")
