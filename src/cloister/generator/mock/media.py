"""The smallest files of each media type that a program can open. Where a format has room for it, the seed shows."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from cloister.datasets.schema import OCTET_STREAM
from cloister.generator.mock.values import Inventor

_SIDE = 8
_EPOCH = (1980, 1, 1, 0, 0, 0)


def build_media(media_type: str, inventor: Inventor) -> bytes:
    """A file of ``media_type``, one of ``datasets.schema.MEDIA_TYPES``. Raises KeyError."""
    return BUILDERS[media_type](inventor)


def _png(inventor: Inventor) -> bytes:
    pixel = inventor.bytes(3)
    rows = (b"\0" + pixel * _SIDE) * _SIDE
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _gif(inventor: Inventor) -> bytes:
    """One pixel, of the first of two colours."""
    colours = inventor.bytes(6)
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0)
        + colours
        + bytes.fromhex("2c00000000010001000002024401003b")
    )


def _bmp(inventor: Inventor) -> bytes:
    row = inventor.bytes(3) * _SIDE
    pixels = row * _SIDE
    header = struct.pack("<IiiHHIIiiII", 40, _SIDE, _SIDE, 1, 24, 0, len(pixels), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + header + pixels


def _jpeg(inventor: Inventor) -> bytes:
    """One grey block: each Huffman table has a single code of one bit, and the scan is these two bits."""
    comment = b"mock " + inventor.bytes(4).hex().encode()
    tables = bytes([0x00, 1, *bytes(15), 0x00]), bytes([0x10, 1, *bytes(15), 0x00])
    segments = (
        (0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
        (0xFE, comment),
        (0xDB, bytes([0]) + bytes([16] * 64)),
        (0xC0, struct.pack(">BHHB", 8, _SIDE, _SIDE, 1) + bytes([1, 0x11, 0])),
        (0xC4, tables[0]),
        (0xC4, tables[1]),
        (0xDA, bytes([1, 1, 0x00, 0, 63, 0])),
    )
    body = b"".join(bytes([0xFF, mark]) + struct.pack(">H", len(data) + 2) + data for mark, data in segments)
    return b"\xff\xd8" + body + b"\x3f\xff\xd9"


def _webp(_: Inventor) -> bytes:
    """One lossless pixel: 14 bits each of width and height less one, no transform, five codes of one symbol each."""
    lossless = bytes.fromhex("2f000000100710111188 88fe0700")
    return _riff(b"WEBP", b"VP8L" + struct.pack("<I", len(lossless)) + lossless + bytes(len(lossless) % 2))


def _wav(inventor: Inventor) -> bytes:
    samples = inventor.bytes(80)
    shape = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
    return _riff(
        b"WAVE", b"fmt " + struct.pack("<I", len(shape)) + shape + b"data" + struct.pack("<I", len(samples)) + samples
    )


def _avi(_: Inventor) -> bytes:
    """A header that says: no stream, no frame."""
    header = struct.pack("<14I", 40_000, 0, 0, 0, 0, 0, 0, 0, _SIDE, _SIDE, 0, 0, 0, 0)
    listed = b"hdrl" + b"avih" + struct.pack("<I", len(header)) + header
    return _riff(b"AVI ", b"LIST" + struct.pack("<I", len(listed)) + listed + b"LIST" + struct.pack("<I", 4) + b"movi")


def _riff(form: bytes, body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 4) + form + body


def _mp3(_: Inventor) -> bytes:
    """One silent frame: MPEG 1 layer III, 128 kbit/s, 44.1 kHz, 417 bytes."""
    return bytes.fromhex("fffb9000").ljust(417, b"\0")


def _midi(inventor: Inventor) -> bytes:
    note = 60 + inventor.integer(low=0, high=12)
    track = bytes([0, 0x90, note, 64, 96, 0x80, note, 64, 0, 0xFF, 0x2F, 0])
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 96) + b"MTrk" + struct.pack(">I", len(track)) + track


def _mp4(_: Inventor) -> bytes:
    """A film header without tracks."""
    unity = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    header = (
        struct.pack(">5IIH", 0, 0, 0, 1000, 0, 0x10000, 0x100) + bytes(10) + unity + bytes(24) + struct.pack(">I", 1)
    )
    return _box(b"ftyp", b"isom" + bytes(4) + b"isomiso2") + _box(b"moov", _box(b"mvhd", header))


def _box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + kind + data


def _mpeg(_: Inventor) -> bytes:
    """A pack header of MPEG-2 and the end code."""
    return bytes.fromhex("000001ba 44000400 0401 000003 f8 000001b9")


def _pdf(inventor: Inventor) -> bytes:
    """One page with a line of text."""
    text = f"BT /F1 18 Tf 20 100 Td (mock {' '.join(inventor.words(3))}) Tj ET".encode()
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 200] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(text), text),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    document, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(document))
        document += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(document))
    return document + b"xref\n0 %d\n" % (len(objects) + 1) + table + trailer


def _xml(inventor: Inventor) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<mock>{inventor.sentences(1)}</mock>\n'.encode()


def _zip(inventor: Inventor) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("mock.txt", _EPOCH), inventor.sentences(2))
    return file.getvalue()


def _octets(inventor: Inventor) -> bytes:
    """Bytes that begin as no known format does."""
    return b"\0mock\0" + inventor.bytes(58)


BUILDERS: Mapping[str, Callable[[Inventor], bytes]] = MappingProxyType(
    {
        OCTET_STREAM: _octets,
        "application/pdf": _pdf,
        "application/xml": _xml,
        "application/zip": _zip,
        "audio/midi": _midi,
        "audio/mpeg": _mp3,
        "audio/x-wav": _wav,
        "image/bmp": _bmp,
        "image/gif": _gif,
        "image/jpeg": _jpeg,
        "image/png": _png,
        "image/webp": _webp,
        "video/mp4": _mp4,
        "video/mpeg": _mpeg,
        "video/x-msvideo": _avi,
    }
)
"""Media type -> what makes such a file."""
