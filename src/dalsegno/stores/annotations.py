"""Annotations: one JSON object an instance, merged name by name."""

from __future__ import annotations

import msgspec

_read = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
# Names in one order: equal annotations have equal bytes.
_write = msgspec.json.Encoder(order="deterministic").encode


def merged(before: str | None, values: bytes) -> str:
    """What an instance has annotated, with new values; each replaces the whole value of its name, null removes it.

    >>> merged('{"a":1,"b":{"c":2}}', b'{"b":{"d":3},"a":null}')
    '{"b":{"d":3}}'
    """
    found = _read(before) if before else {}
    found.update(_read(values))
    return _write({name: value for name, value in found.items() if bytes(value) != b"null"}).decode()
