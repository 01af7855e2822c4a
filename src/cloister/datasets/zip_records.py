"""The records of a ZIP file as structs, and the few constants that writer and reader share.

Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 and 4.4.
"""

from __future__ import annotations

import re
import struct
import unicodedata

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
"""signature, version, flags, method, time, date, crc, compressed size, size, name length, extra length"""
CENTRAL_HEADER = struct.Struct("<4s6H3I5H2I")
"""signature, made by, version, flags, method, time, date, crc, compressed size, size, name length, extra length,
comment length, disk, internal attributes, external attributes, offset"""
END_RECORD = struct.Struct("<4s4H2IH")
"""signature, disk, directory disk, entries on disk, entries, directory size, directory offset, comment length"""
ZIP64_END_RECORD = struct.Struct("<4sQ2H2I4Q")
"""signature, size of the rest, made by, version, disk, directory disk, entries on disk, entries, directory size,
directory offset"""
ZIP64_LOCATOR = struct.Struct("<4sIQI")
"""signature, disk of the end record, its offset, number of disks"""
DESCRIPTOR = struct.Struct("<4s3I")
DESCRIPTOR64 = struct.Struct("<4sI2Q")
"""signature, crc, compressed size, size"""

LOCAL_SIGNATURE = b"PK\x03\x04"
CENTRAL_SIGNATURE = b"PK\x01\x02"
END_SIGNATURE = b"PK\x05\x06"
ZIP64_END_SIGNATURE = b"PK\x06\x06"
ZIP64_LOCATOR_SIGNATURE = b"PK\x06\x07"
DESCRIPTOR_SIGNATURE = b"PK\x07\x08"

STORED, DEFLATED = 0, 8
VERSION, VERSION_ZIP64 = 20, 45
MADE_BY_UNIX = 3 << 8
FLAG_DESCRIPTOR = 1 << 3
FLAG_UTF8 = 1 << 11
FLAGS_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
ZIP64_EXTRA = 1
U16_MAX, U32_MAX = 0xFFFF, 0xFFFFFFFF
DATE_1980 = 1 << 5 | 1
"""1980-01-01, the earliest date of the format: an archive does not say when it was made."""
FILE_MODE, FOLDER_MODE = 0o100644, 0o040755
FOLDER_ATTRIBUTE = 0x10

_DRIVE = re.compile(r"[A-Za-z]:")


def find_path_fault(path: str) -> str | None:
    """Why ``path`` may not name an entry (the end of a sentence), or None. A folder's path ends in a slash."""
    if "\\" in path or any(unicodedata.category(c) in ("Cc", "Cs") for c in path):
        return "has a backslash or a control character"
    if path.startswith("/") or _DRIVE.match(path):
        return "is absolute"
    if any(part in ("", ".", "..") for part in path.removesuffix("/").split("/")):
        return "leaves the archive or has empty parts"
    return None
