"""The bytes between the sandbox and its child: one JSON header and one body per message, nothing pickled.

What belongs here: framing and its size limits, used by both sides. What the messages mean is `sandbox.py` and `child.py`.

A message is: 4 bytes header length, 8 bytes body length (both big-endian), the header as ASCII JSON, the body. A reply's body
is the Arrow IPC streams of its tables, one after another; the header lists their names and lengths.
"""

import json
import struct
from typing import Any

import pyarrow as pa

PREFIX = struct.Struct(">IQ")
MAX_HEADER_BYTES = 64 << 20

Header = dict[str, Any]


class WireError(Exception):
    """The other side sent something that is no message."""


def encode(header: Header, body: bytes = b"") -> bytes:
    """One message. Lone surrogates in file names survive, because the JSON is ASCII."""
    text = json.dumps(header).encode("ascii")
    if len(text) > MAX_HEADER_BYTES:
        raise WireError(f"header of {len(text)} bytes, the limit is {MAX_HEADER_BYTES}")
    return PREFIX.pack(len(text), len(body)) + text + body


def decode(buffer: bytearray, max_body_bytes: int) -> tuple[Header, bytes] | None:
    """Take one whole message off the front of `buffer`; None while it is incomplete.

    Raises:
        WireError: lengths over the limits, or a header that is no JSON object. The stream is unusable from then on.
    """
    if len(buffer) < PREFIX.size:
        return None
    header_bytes, body_bytes = PREFIX.unpack_from(buffer)
    if header_bytes > MAX_HEADER_BYTES or body_bytes > max_body_bytes:
        raise WireError(
            f"message of {header_bytes} + {body_bytes} bytes; the limits are {MAX_HEADER_BYTES} + {max_body_bytes}"
        )
    end = PREFIX.size + header_bytes + body_bytes
    if len(buffer) < end:
        return None
    text = bytes(buffer[PREFIX.size : PREFIX.size + header_bytes])
    body = bytes(memoryview(buffer)[PREFIX.size + header_bytes : end])
    del buffer[:end]
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise WireError("header is no JSON object")
    return header, body


def tables_to_bytes(tables: dict[str, pa.Table]) -> tuple[list[tuple[str, int]], bytes]:
    """The (name, length) list and the body for a reply."""
    parts = []
    for name, table in tables.items():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        parts.append((name, sink.getvalue().to_pybytes()))
    return [(name, len(data)) for name, data in parts], b"".join(data for _, data in parts)


def tables_from_bytes(names: object, body: bytes) -> dict[str, pa.Table]:
    """The tables of a reply, every offset and length in them checked.

    Raises:
        WireError: the list or the streams do not fit the body.
    """
    tables: dict[str, pa.Table] = {}
    view = memoryview(body)
    try:
        for name, length in names:  # type: ignore[attr-defined]
            table = pa.ipc.open_stream(pa.py_buffer(view[:length])).read_all()
            table.validate(full=True)
            tables[str(name)] = table
            view = view[length:]
    except (TypeError, ValueError, OSError, pa.ArrowException) as error:
        raise WireError(f"tables cannot be read: {error}") from error
    if len(view):
        raise WireError(f"{len(view)} bytes after the last table")
    return tables
