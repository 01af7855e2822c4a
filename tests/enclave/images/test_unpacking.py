"""What an archive may hold, and all that it may not: every part is what its digest says, and nothing leads out."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.support.images import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    INDEX,
    PLAIN_LAYER,
    HandMade,
    entry,
    folder,
    hardlink,
    layer,
    symlink,
)

from cloister.enclave.images.image import Image, unpack_image
from cloister.enclave.images.tree import Directory, File, Node, Symlink
from cloister.errors import CloisterError, DecodeError, NotFound, TooLarge, VerificationError
from cloister.protocol.bundles import LABEL, UNLABELLED, Manifest, Resources, build_manifest

OURS = {"etc/hosts": b"127.0.0.1\tlocalhost iapp\n::1\tlocalhost\n", "etc": "0755", "tmp": "1777"}


def take(image: HandMade, tmp_path: Path, archive: bytes | None = None, **caps: int) -> Image:
    """Unpack it, in pieces of odd sizes."""
    data = image.archive() if archive is None else archive
    pieces = (data[start : start + 70_001] for start in range(0, len(data), 70_001))
    return unpack_image(pieces, tmp_path / "staging", expected_digest=image.digest, **caps)


def seen(image: Image) -> dict[str, bytes | str]:
    """Path -> content, ``-> target``, or a folder's mode."""
    found: dict[str, bytes | str] = {}

    def look(node: Node, path: str) -> None:
        match node:
            case File():
                found[path] = image.root.layers.path(node.content).read_bytes()
            case Symlink():
                found[path] = f"-> {node.target}"
            case Directory():
                if path:
                    found[path] = f"{node.mode:04o}"
                for name, child in node.children.items():
                    look(child, f"{path}/{name}".lstrip("/"))

    look(image.root.layers.tree.root, "")
    return found


def layers(
    tmp_path: Path, *all_layers: Iterable[tuple[tarfile.TarInfo, bytes]], **config: Any
) -> dict[str, bytes | str]:
    return seen(take(HandMade([layer(*one) for one in all_layers], config=config), tmp_path))


def refused(tmp_path: Path, image: HandMade, archive: bytes | None = None, **caps: int) -> CloisterError:
    with pytest.raises(CloisterError) as failure:
        take(image, tmp_path, archive, **caps)
    assert not (tmp_path / "staging").exists(), "nothing is left"
    return failure.value


def written(image: Image, tmp_path: Path) -> Path:
    """The root on a real file system."""
    root = tmp_path / "root"
    root.mkdir()
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    image.root.write(handle, owner=None)
    os.close(handle)
    return root


# --- what layers mean ---


def test_a_later_layer_replaces_removes_and_hides(tmp_path: Path) -> None:
    lower = [
        folder("a", 0o750),
        entry("a/one", b"1"),
        entry("a/two", b"2"),
        folder("b"),
        entry("b/old", b"old"),
        entry("b/c/older", b"older"),
        entry("./dot", b"dot"),
        entry("gone/deep/x", b"x"),
    ]
    upper = [
        entry("a/.wh.one"),
        entry("a/two", b"two"),
        entry("b/new", b"new"),
        entry("b/c/newer", b"newer"),
        entry("b/.wh..wh..opq"),
        entry(".wh.gone"),
        entry("gone/again", b"again"),
        entry(".wh..wh.plnk"),
        entry("dot", b"file"),
    ]
    assert layers(tmp_path, lower, upper) == OURS | {
        "a": "0750",
        "a/two": b"two",
        "b": "0755",
        "b/new": b"new",
        "b/c": "0755",
        "b/c/newer": b"newer",
        "gone": "0755",
        "gone/again": b"again",
        "dot": b"file",
    }


def test_kinds_change_between_layers_and_the_last_of_equal_names_counts(tmp_path: Path) -> None:
    lower = [
        entry("x", b"file"),
        folder("y"),
        entry("y/in", b"in"),
        symlink("z", "/x"),
        entry("w", b"first"),
        entry("w", b"last"),
    ]
    upper = [folder("x"), entry("x/in", b"in"), entry("y", b"file"), folder("z"), entry("z/in", b"in")]
    assert layers(tmp_path, lower, upper) == OURS | {
        "x": "0755",
        "x/in": b"in",
        "y": b"file",
        "z": "0755",
        "z/in": b"in",
        "w": b"last",
    }
    assert len(list((tmp_path / "staging" / "files").iterdir())) == 5, "what stands nowhere takes no memory"


def test_links_are_followed_inside_the_image_only(tmp_path: Path) -> None:
    lower = [
        folder("usr/lib"),
        symlink("lib", "usr/lib"),
        symlink("up", "../../../usr"),
        symlink("abs", "/usr/lib"),
        symlink("loop", "loop"),
    ]
    upper = [
        entry("lib/a", b"a"),
        entry("up/lib/b", b"b"),
        entry("abs/c", b"c"),
        symlink("away", "/no/where"),
        entry("away/d", b"d"),
    ]
    found = layers(tmp_path, lower, upper)
    assert {name: found[name] for name in ("usr/lib/a", "usr/lib/b", "usr/lib/c", "no/where/d")} == {
        "usr/lib/a": b"a",
        "usr/lib/b": b"b",
        "usr/lib/c": b"c",
        "no/where/d": b"d",
    }
    image = HandMade([layer(*lower), layer(entry("loop/x", b"x"))])
    (tmp_path / "second").mkdir()
    assert refused(tmp_path / "second", image).code == "image-link"


def test_hard_links_share_their_content_and_are_written_as_such(tmp_path: Path) -> None:
    lower = [entry("d/one", b"same"), hardlink("two", "d/one"), symlink("s", "d/one"), hardlink("three", "s")]
    image = take(HandMade([layer(*lower), layer(entry(".wh.two"), hardlink("d/four", "./d/one"))]), tmp_path)
    assert seen(image) == OURS | {
        "d": "0755",
        "d/one": b"same",
        "s": "-> d/one",
        "three": "-> d/one",
        "d/four": b"same",
    }
    root = written(image, tmp_path)
    assert (root / "d/one").stat().st_ino == (root / "d/four").stat().st_ino
    assert (root / "three").readlink() == Path("d/one")


def test_what_is_written_is_plain_and_readable_and_nobodys_but_ours(tmp_path: Path) -> None:
    made = [
        entry("su", b"x", mode=0o4755, uid=0),
        entry("sg", b"x", mode=0o2711),
        entry("secret", b"x", mode=0o000),
        entry("group", b"x", mode=0o070),
        folder("closed", 0o000),
        entry("closed/in", b"in"),
        folder("shared", 0o1777),
        symlink("link", "/etc/shadow"),
        entry("dev/null", kind=tarfile.CHRTYPE),
        entry("dev/log", b"x"),
        entry("run/pipe", kind=tarfile.FIFOTYPE),
        entry("proc/planted", b"x"),
        entry("iexec_out/planted", b"x"),
        entry("opt/cloister/cloister/errors.py", b"x"),
    ]
    image = take(HandMade([layer(*made)]), tmp_path)
    size = image.root.size
    root = written(image, tmp_path)
    modes = {path.name: path.lstat().st_mode & 0o7777 for path in root.iterdir() if not path.is_symlink()}
    assert modes["su"] == 0o755
    assert modes["sg"] == 0o711
    assert modes["secret"] == 0o400
    assert modes["group"] == 0o770
    assert modes["closed"] == 0o700
    assert modes["shared"] == 0o1777
    assert (root / "link").is_symlink()
    assert not {"dev", "proc", "iexec_out", "run"} & {path.name for path in root.iterdir()}
    assert list((root / "opt").iterdir()) == []
    assert size >= 4096 * 8
    assert not list((tmp_path / "staging" / "files").iterdir()), "what is written has moved, what is covered is gone"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_links_of_either_form(tmp_path: Path, form: int) -> None:
    name = "/".join(["d" * 90] * 4) + "/" + "f" * 200
    odd = "caf\u00e9 \u2603 \udcff".encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    tar = layer(entry(name, b"deep"), symlink("l" * 150, "t" * 150), entry(odd, b"odd"), form=form)
    found = seen(take(HandMade([tar]), tmp_path))
    assert found[name] == b"deep"
    assert found["l" * 150] == "-> " + "t" * 150
    assert found[odd] == b"odd"


# --- what layers may not hold ---


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (entry("../x", b"x"), "image-path"),
        (entry("a/../../x", b"x"), "image-path"),
        (entry("/etc/passwd", b"x"), "image-path"),
        (entry("a//b", b"x"), "image-path"),
        (entry("a/./../b", b"x"), "image-path"),
        (symlink("", "/"), "image-path"),
        (symlink(".", "/"), "image-path"),
        (entry("n" * 256, b"x"), "image-path"),
        (entry("/".join("a" * 130), b"x"), "image-path"),
        (entry("a/.wh.", b""), "image-path"),
        (entry(".wh...", b""), "image-path"),
        (hardlink("a", "/etc/passwd"), "image-path"),
        (hardlink("a", "../../etc/passwd"), "image-path"),
        (hardlink("a", "nothing"), "image-link"),
        (hardlink("a", "tmp"), "image-link"),
        (hardlink("a", "link/passwd"), "image-link"),
        (entry("sda", kind=tarfile.BLKTYPE, devmajor=8), "image-device"),
        (entry("etc/kmem", kind=tarfile.CHRTYPE, devmajor=1, devminor=2), "image-device"),
        (entry("pipe", kind=tarfile.FIFOTYPE), "image-device"),
        (entry("x", kind=b"S"), "malformed"),
        (entry("x", kind=b"D"), "malformed"),
        (entry("x", kind=b"V"), "malformed"),
        (entry("file/below", b"x"), "image-path"),
    ],
)
def test_what_no_layer_may_hold(tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes], code: str) -> None:
    image = HandMade([layer(folder("tmp"), entry("file", b"f"), symlink("link", "/etc"), bad)])
    error = refused(tmp_path, image)
    assert isinstance(error, DecodeError)
    assert error.code == code


def test_bombs_end_at_their_caps(tmp_path: Path) -> None:
    zeros = layer(entry("zeros", bytes(2 << 20)))
    assert refused(tmp_path, HandMade([zeros]), max_unpacked=1 << 20).code == "image-bomb"
    assert refused(tmp_path, HandMade([zeros] * 3), max_unpacked=5 << 20).code == "image-bomb"
    many = layer(*(entry(f"f{number}") for number in range(300)))
    assert isinstance(refused(tmp_path, HandMade([many]), max_entries=299), TooLarge)
    assert isinstance(refused(tmp_path, HandMade([many, many]), max_entries=500), TooLarge)
    assert isinstance(refused(tmp_path, HandMade([many]), max_bytes=1000), TooLarge)
    nested = HandMade([zeros])
    nested.blobs.update({f"{number:064x}": b"" for number in range(2000)})
    assert isinstance(refused(tmp_path, nested), CloisterError)
    # A tiny file that says it holds 2^60 bytes, in each of the two ways there are to say so.
    for size in (b"\x80" + (1 << 60).to_bytes(11, "big"), b"77777777777\0"):
        header = bytearray(tarfile.TarInfo("huge").tobuf())
        header[124:136] = size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        assert isinstance(refused(tmp_path, HandMade([bytes(header) + bytes(2048)])), DecodeError)


def test_links_that_multiply_end(tmp_path: Path) -> None:
    """Each link names the one before twice: followed, that is 2^40 steps."""
    chain = [folder("l0")] + [symlink(f"l{n}", f"l{n - 1}/../l{n - 1}") for n in range(1, 41)]
    assert refused(tmp_path, HandMade([layer(*chain, entry("l40/x", b"x"))])).code == "image-link"


@pytest.mark.parametrize("packed", ["cut", "trailing", "two members", "not gzip", "zlib"])
def test_layers_that_are_packed_otherwise(tmp_path: Path, packed: str) -> None:
    tar = layer(entry("x", os.urandom(5000)))
    whole = gzip.compress(tar, mtime=0)
    content = {
        "cut": whole[:-9],
        "trailing": whole + b"trailing",
        "two members": gzip.compress(tar[:1000]) + gzip.compress(tar[1000:]),
        "not gzip": tar,
        "zlib": zlib.compress(tar),
    }[packed]
    image = HandMade([tar])
    image.manifest["layers"] = [image.add(content, image.media[2])]
    image.settle(image.manifest)
    if packed == "two members":
        assert "x" in seen(take(image, tmp_path))
    else:
        assert isinstance(refused(tmp_path, image), DecodeError)


# --- documents and digests ---


def settle(image: HandMade, **members: object) -> HandMade:
    image.settle({**image.manifest, **members})
    return image


def test_an_index_gives_the_image_for_this_machine(tmp_path: Path) -> None:
    image = HandMade([layer(entry("x", b"x"))], media=(DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER))
    described = image.add(image.blobs[image.digest.hex()], DOCKER_MANIFEST)
    arch = json.loads(image.blobs[image.manifest["config"]["digest"].removeprefix("sha256:")])["architecture"]
    places = [
        {
            "mediaType": DOCKER_MANIFEST,
            "digest": "sha256:" + "1" * 64,
            "size": 3,
            "platform": {"os": "linux", "architecture": "mips"},
        },
        {**described, "platform": {"os": "windows", "architecture": arch}},
        {**described, "platform": {"os": "linux", "architecture": arch}},
    ]
    image.settle({"schemaVersion": 2, "mediaType": INDEX, "manifests": places})
    assert "x" in seen(take(image, tmp_path))
    image.settle({"schemaVersion": 2, "mediaType": INDEX, "manifests": places[:2]})
    (tmp_path / "second").mkdir()
    error = refused(tmp_path / "second", image)
    assert isinstance(error, NotFound)
    assert "linux/mips" in error.message
    image.settle({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**places[2], "size": 1}]})
    assert refused(tmp_path / "second", image).code == "image-size"


@pytest.mark.parametrize(
    "members",
    [
        {"manifests": []},
        {"layers": None},
        {"config": None},
        {"schemaVersion": 1},
        {"mediaType": "application/vnd.docker.distribution.manifest.v1+json"},
        {"layers": [{"mediaType": PLAIN_LAYER, "digest": "sha512:" + "0" * 128, "size": 1}]},
        {"layers": [{"mediaType": PLAIN_LAYER, "digest": "sha256:../../../etc/passwd", "size": 1}]},
        {"layers": [{"mediaType": PLAIN_LAYER, "digest": "sha256:" + "0" * 64, "size": -1}]},
        {
            "layers": [
                {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": "sha256:" + "0" * 64, "size": 1}
            ]
        },
        {
            "layers": [
                {
                    "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                    "digest": "sha256:" + "0" * 64,
                    "size": 1,
                }
            ]
        },
        {"layers": [{}] * 128},
    ],
)
def test_documents_that_are_not_read(tmp_path: Path, members: dict[str, object]) -> None:
    assert isinstance(refused(tmp_path, settle(HandMade([layer(entry("x"))]), **members)), DecodeError)


def test_every_part_is_what_its_digest_and_size_say(tmp_path: Path) -> None:
    image = HandMade([layer(entry("x", b"x" * 9000))])
    wrong = dict(image.blobs)
    for digest, content in image.blobs.items():
        image.blobs = {**wrong, digest: content + b" "}
        assert refused(tmp_path, image).code == "image-digest"
        image.blobs = {name: kept for name, kept in wrong.items() if name != digest}
        assert refused(tmp_path, image).code == "image-digest"
    image.blobs = wrong
    grown = {**image.manifest["layers"][0], "size": image.manifest["layers"][0]["size"] + 1}
    assert refused(tmp_path, settle(image, layers=[grown])).code == "image-size"


def test_archives_that_hold_more_than_an_image(tmp_path: Path) -> None:
    image = HandMade([layer(entry("x"))])
    twice = image.archive()
    blob = f"blobs/sha256/{image.digest.hex()}"
    again = layer(entry(blob, image.blobs[image.digest.hex()]), form=tarfile.USTAR_FORMAT)
    assert isinstance(
        refused(
            tmp_path,
            image,
            twice[: -2 * 512].rstrip(b"\0") + bytes(-len(twice[: -2 * 512].rstrip(b"\0")) % 512) + again,
        ),
        DecodeError,
    )
    for bad in (
        entry("../x", b"x"),
        entry("blobs/sha256/x", b"x"),
        symlink("blobs/sha256/" + "0" * 64, "/etc/passwd"),
        entry("etc/x", b"x"),
    ):
        assert isinstance(refused(tmp_path, image, layer(bad, form=tarfile.USTAR_FORMAT)), DecodeError)
    assert isinstance(refused(tmp_path, image, b""), VerificationError)
    assert isinstance(refused(tmp_path, image, os.urandom(2000)), DecodeError)


# --- configurations ---


def test_what_a_container_starts_with(tmp_path: Path) -> None:
    accounts = [
        entry("etc/passwd", b"broken\nroot:x:0:0::/root:/bin/sh\napp:x:7:8::/srv/app:/bin/sh\n"),
        entry("etc/group", b"staff:x:9:\n"),
    ]
    config = {
        "Entrypoint": ["/a", "b"],
        "Cmd": ["c"],
        "Env": ["PATH=/x", "A=", "A=1=2"],
        "WorkingDir": "/srv/link/x",
        "User": "app:staff",
    }
    image = take(
        HandMade([layer(*accounts, symlink("srv/link", "/real"))], config={**config, "Volumes": {"/data": {}}}),
        tmp_path,
    )
    assert (image.entrypoint, image.command) == (("/a", "b"), ("c",))
    assert image.environment == {"PATH": "/x", "HOME": "/srv/app", "HOSTNAME": "iapp", "A": "1=2"}
    assert image.directory == "/real/x"
    assert (image.root.user, image.root.group) == (7, 9)
    assert {"data", "real/x"} <= set(seen(image))
    assert image.manifest == UNLABELLED


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0)),
        ("0", (0, 0)),
        ("42", (42, 0)),
        ("7", (7, 8)),
        ("app", (7, 8)),
        ("app:5", (7, 5)),
        ("1:2", (1, 2)),
        (":9", (0, 9)),
    ],
)
def test_users(tmp_path: Path, user: str, expected: tuple[int, int]) -> None:
    image = take(HandMade([layer(entry("etc/passwd", b"app:x:7:8::/:/bin/sh\n"))], config={"User": user}), tmp_path)
    assert (image.root.user, image.root.group) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"User": "nobody-here"},
        {"User": "99999999999"},
        {"User": "4294967295"},
        {"User": "0:staff"},
        {"User": 5},
        {"Env": ["=x"]},
        {"Env": ["novalue"]},
        {"Env": ["A=\0"]},
        {"Env": [f"A{number}=" for number in range(1001)]},
        {"Cmd": "sh"},
        {"Cmd": [1]},
        {"Entrypoint": ["x" * 200_000]},
        {"WorkingDir": "/file"},
        {"WorkingDir": "/iexec_in/x"},
        {"WorkingDir": "/../proc/1"},
        {"Volumes": ["/x"]},
        {"Labels": {LABEL: "{}"}},
        {"Labels": {LABEL: 5}},
        {"Labels": {LABEL: build_manifest(Manifest("a", "1", "main.py")).decode()}},
    ],
)
def test_configurations_that_are_not_run(tmp_path: Path, config: dict[str, object]) -> None:
    assert isinstance(refused(tmp_path, HandMade([layer(entry("file", b"x"))], config=config)), DecodeError)


def test_the_label_is_the_manifest(tmp_path: Path) -> None:
    manifest = Manifest("boxed", "1", "", "container", Resources(memory_mib=64), ("a.example:443",), ("research",))
    image = HandMade(
        [layer(entry("x"))], config={"Labels": {LABEL: build_manifest(manifest).decode(), "other": "label"}}
    )
    assert take(image, tmp_path).manifest == manifest
