"""sealing.private_files: content that opens as the file of its number, with its key, and as nothing else."""

from __future__ import annotations

import os

import pytest

from cloister.errors import InputError, VerificationError
from cloister.protocol.params import INPUT_FILE_CAP
from cloister.sealing.keys import ContentFormat, build_content_key, generate_content_key, open_content
from cloister.sealing.private_files import open_private_file, parse_private_key, seal_private_file
from cloister.worker.fetching import MAX_INPUT_FILE


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 56, 3 << 20])
def test_what_is_sealed_opens(size: int) -> None:
    key, content = generate_content_key(os.urandom), os.urandom(size)
    sealed = b"".join(seal_private_file(key, 7, [content[:10], content[10:]], entropy=os.urandom))
    again = parse_private_key(build_content_key(key))
    assert b"".join(open_private_file(again, 7, [sealed[:100], sealed[100:]])) == content
    for number, other in ((6, key), (77, key), (7, generate_content_key(os.urandom))):
        with pytest.raises(VerificationError):
            b"".join(open_private_file(other, number, [sealed]))
    with pytest.raises(VerificationError):
        b"".join(open_content(key, [sealed]))  # protected data is another thing


def test_keys_and_numbers_that_are_refused() -> None:
    key = generate_content_key(os.urandom)
    with pytest.raises(InputError, match="input files count from 1, got 0"):
        seal_private_file(key, 0, [b""], entropy=os.urandom)
    other = build_content_key(generate_content_key(os.urandom, ContentFormat.AES256_CBC))
    with pytest.raises(InputError, match="must be of the format AES256_GCM_HKDF_1MB") as refusal:
        parse_private_key(other)
    assert other not in str(refusal.value)
    with pytest.raises(InputError):
        parse_private_key("AES256_GCM_HKDF_1MB:abc")


def test_no_more_is_sealed_than_a_worker_fetches() -> None:
    assert INPUT_FILE_CAP == MAX_INPUT_FILE
