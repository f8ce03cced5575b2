"""TIFF files that other programs write and Pillow does not."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

DEFLATE = 8


def packed(levels: np.ndarray, bits: int) -> bytes:
    """Rows of unsigned samples without gaps, each row padded to whole bytes."""
    rows = np.asarray(levels, ">u2").reshape(len(levels), -1)
    each = np.unpackbits(rows.view(np.uint8).reshape(*rows.shape, 2), axis=-1)[..., 16 - bits :]
    return np.packbits(each.reshape(len(rows), -1), axis=1).tobytes()


def write(
    path: Path,
    data: bytes,
    shape: tuple[int, int],
    bits: int,
    order: str = "<",
    samples: int = 1,
    compression: int = 1,
    **tags: Any,
) -> None:
    """Write one image in one strip; `tags` are photometric (1), sample_format (1) or t281=value."""
    data = zlib.compress(data) if compression == DEFLATE else data
    data += bytes(len(data) % 2)
    known = {"photometric": 262, "sample_format": 339}
    entries: dict[int, list[int]] = {
        256: [shape[1]],
        257: [shape[0]],
        258: [bits] * samples,
        259: [compression],
        262: [1],
        273: [8],
        277: [samples],
        278: [shape[0]],
        279: [len(data)],
    }
    for name, value in tags.items():
        tag = known[name] if name in known else int(name[1:])
        values = value if isinstance(value, list) else [value]
        entries[tag] = values * samples if name == "sample_format" else values
    start = 8 + len(data)
    directory, after = struct.pack(f"{order}H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        wide = tag in (273, 279)
        content = struct.pack(f"{order}{len(values)}{'I' if wide else 'H'}", *values)
        if len(content) > 4:
            at = start + 2 + 12 * len(entries) + 4 + len(after)
            content, after = struct.pack(f"{order}I", at), after + content
        directory += struct.pack(f"{order}HHI", tag, 4 if wide else 3, len(values))
        directory += content.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(f"{order}I", start)
    path.write_bytes(head + data + directory + bytes(4) + after)
