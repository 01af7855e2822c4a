"""Whatever a stranger's archive holds: it is the image that was named, or a named refusal that leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.images import HandMade, entry, folder, hardlink, layer, symlink

from cloister.enclave.images.image import unpack_image
from cloister.errors import CloisterError, InputError, NotFound, RemoteError

NAMES = st.sampled_from(
    [
        "a",
        "b",
        "a/b",
        "a/b/c",
        "b/a",
        "c",
        "./a",
        "a/",
        "..",
        "../a",
        "/a",
        "a/../b",
        ".wh.a",
        "a/.wh.b",
        "a/.wh..wh..opq",
        "",
    ]
)
TARGETS = st.sampled_from(["a", "b", "/", "..", "../..", "/a", "a/b", "../../../../etc", "c/c", "."])
ENTRIES = st.one_of(
    st.builds(entry, NAMES, st.binary(max_size=8)),
    st.builds(folder, NAMES, st.integers(0, 0o7777)),
    st.builds(symlink, NAMES, TARGETS),
    st.builds(hardlink, NAMES, TARGETS),
    st.builds(lambda name: entry(name, kind=tarfile.FIFOTYPE), NAMES),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(ENTRIES, max_size=6), min_size=1, max_size=3))
def test_any_layers_end_inside_their_root_or_in_a_refusal(
    all_layers: list[list[tuple[tarfile.TarInfo, bytes]]],
) -> None:
    image = HandMade([layer(*one) for one in all_layers])
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        canary = here / "canary"
        canary.write_text("untouched")
        try:
            taken = unpack_image([image.archive()], here / "staging", expected_digest=image.digest)
        except (RemoteError, NotFound, InputError):
            assert {path.name for path in here.iterdir()} == {"canary"}
            return
        root = here / "root"
        root.mkdir()
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            taken.root.write(handle, owner=None)
        finally:
            os.close(handle)
        assert list((here / "staging" / "files").iterdir()) == [], "every content stands somewhere, once"
        assert {path.name for path in here.iterdir()} == {"canary", "staging", "root"}
        assert canary.read_text() == "untouched"
        for directory, folders, files in os.walk(root):
            for name in (*folders, *files):
                assert not name.startswith(".wh.")
                assert (Path(directory) / name).lstat().st_mode & 0o6000 == 0
        shutil.rmtree(here / "staging")


WHOLE = HandMade([layer(entry("a", b"a" * 300), symlink("l", "a"), folder("d")), layer(entry("d/.wh..wh..opq"))])
ARCHIVE = WHOLE.archive()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(ARCHIVE) - 1), st.integers(1, 255), st.integers(0, 2000), st.booleans())
def test_no_change_of_an_archive_changes_the_image(at: int, by: int, cut: int, doubled: bool) -> None:
    changed = bytearray(ARCHIVE)
    changed[at] ^= by
    data = bytes(changed[: len(changed) - cut])
    with tempfile.TemporaryDirectory() as temporary:
        staging = Path(temporary) / "staging"
        try:
            taken = unpack_image([data, data] if doubled else [data], staging, expected_digest=WHOLE.digest)
        except CloisterError:
            assert not staging.exists()
            return
        # What changed was no part of the image: a time in a header, padding, the index that decides nothing.
        assert taken.digest == WHOLE.digest
        assert set(taken.root.layers.tree.root.children) == {"a", "l", "d", "etc", "tmp"}
