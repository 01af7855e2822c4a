"""Container iApps, built where no registry is: the same source gives the same image, and an enclave runs it."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.enclave.world import APP, APP_LOCATION, HELLO, TestPlatform, build_world
from tests.support.base_images import need_builder, python_base
from tests.support.images import HandMade, entry, layer

from cloister.enclave.images.image import unpack_image
from cloister.errors import ConfigurationError, DecodeError, InputError, NotFound, TooLarge
from cloister.generator.bundle import build_bundle, load_digest, load_manifest, load_settings
from cloister.generator.image_builders import Builder, BuildRequest, find_builder
from cloister.generator.images import build_image, load_image
from cloister.generator.init import init_project
from cloister.generator.rehearsal import rehearse
from cloister.protocol.releases import ReleasedApp
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime

SETTINGS = """name = "boxed"
version = "1"
runtime = "container"
[resources]
memory_mib = 64
disk_mib = 16
seconds = 20
processes = 4
"""
PROGRAM = r"""#include <stdio.h>
int main(int n, char **v) {
  FILE *f = fopen("/iexec_out/result.txt", "w"); fprintf(f, "hello %s", n > 1 ? v[1] : ""); fclose(f);
  f = fopen("/iexec_out/computed.json", "w"); fputs("{\"deterministic-output-path\":\"/iexec_out/result.txt\"}", f);
  fclose(f); return 0; }
"""
Write = Callable[..., Path]


class Relabelling(Builder):
    """Gives the image another manifest than it was asked to, as a base image's ONBUILD might."""

    def build(self, request: BuildRequest, work: Path) -> Path:
        label = request.label.replace('"version":"1"', '"version":"2"')
        return super().build(replace(request, label=label), work)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A project of a few files."""

    def make(containerfile: str, *, settings: str = SETTINGS, **files: bytes) -> Path:
        folder = tmp_path / "app"
        for name, content in {"iapp.toml": settings.encode(), "Containerfile": containerfile.encode(), **files}.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder

    return make


def test_an_image_is_built_again_to_the_same_bytes_and_run_by_an_enclave(
    write: Write, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    need_builder()
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    (tmp_path / "hello.c").write_text(PROGRAM)
    subprocess.run([compiler, "-static", "-s", "-o", tmp_path / "hello", tmp_path / "hello.c"], check=True)
    lines = [
        "ARG WHO=nobody",
        "FROM scratch",
        "ARG WHO",
        "COPY . /app/",
        'ENTRYPOINT ["/app/hello"]',
        'CMD ["cmd"]',
        "LABEL who=${WHO}",
    ]
    settings = f'{SETTINGS}[container]\narguments = {{ WHO = "me" }}\nnetwork = "none"\n'
    more = {
        "hello": (tmp_path / "hello").read_bytes(),
        "mock__data": b"m",
        ".hidden": b"h",
        "tests__t.py": b"t",
        "requirements.txt": b"r",
    }
    folder = write("\n".join(lines), settings=settings, **more)
    first = build_bundle(folder)
    assert first.path == folder / "build" / "boxed.oci.tar"
    before = first.path.read_bytes()
    (folder / "hello").chmod(0o600)
    (folder / "__pycache__").mkdir()
    shutil.move(folder, tmp_path / "elsewhere")
    second = build_bundle(tmp_path / "elsewhere", tmp_path / "second.oci.tar")
    assert second.digest == first.digest
    assert second.path.read_bytes() == before
    assert (load_digest(second.path), load_manifest(second.path)) == (first.digest, first.manifest)
    with tarfile.open(second.path) as archive:
        names = archive.getnames()
        assert names[:3] == ["oci-layout", "index.json", f"blobs/sha256/{first.digest.removeprefix('0x')}"]
        assert {(member.mtime, member.uid, member.uname) for member in archive} == {(0, 0, "")}

    with second.path.open("rb") as file:
        taken = unpack_image(
            iter(lambda: file.read(1 << 20), b""), tmp_path / "taken", expected_digest=first.digest.raw
        )
    assert taken.manifest == load_settings(tmp_path / "elsewhere").manifest
    assert set(taken.root.layers.tree.root.children["app"].children) == {"hello", "requirements.txt"}  # type: ignore[union-attr]

    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    runtime = BubblewrapRuntime()
    request.addfinalizer(runtime.close)
    world = build_world(TestPlatform(), tmp_path / "iapp", HELLO, params='{"iexec_args":"world"}')
    world.bundle = second
    world.content[APP_LOCATION] = second.path.read_bytes()
    world.release = replace(world.release, app=ReleasedApp(APP, APP_LOCATION, second.digest))
    outcome = world.run(runtime)
    assert outcome.cause is None, world.files()
    assert world.files()["result.txt"] == b"hello world"


@pytest.mark.nightly
def test_the_template_builds_and_passes_its_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOISTER_BUILD_ARGS", f"BASE={python_base()}")
    project = init_project("boxed", "container", tmp_path / "boxed")
    run = rehearse(project.folder, args="Grace Hopper")
    assert run.cause is None, run.stderr
    assert run.read("words.txt").startswith(b"Hello, Grace Hopper!\nThe longest words: abracadabra")


def test_what_does_not_build_is_said_with_the_builders_words(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_builder()
    with pytest.raises(InputError, match="no-such-file"):
        build_bundle(write("FROM scratch\nCOPY no-such-file /x\n", main=b"x"))
    folder = write("FROM scratch\nCOPY main /x\n", main=b"x")
    settings, real = load_settings(folder), find_builder()
    with pytest.raises(InputError, match=r"label org\.cloister\.manifest"):
        build_image(folder, settings, tmp_path / "x.tar", builder=Relabelling(real.name, real.program))
    with pytest.raises(TooLarge):
        build_image(folder, settings, tmp_path / "x.tar", max_bytes=100)
    monkeypatch.setenv("CLOISTER_BUILD_ARGS", "noequals")
    with pytest.raises(InputError, match="noequals"):
        build_bundle(folder)
    assert not (tmp_path / "x.tar").exists()
    assert list((folder / "build").iterdir()) == [], "nothing is left half-way"


def test_settings_of_a_container(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(write("FROM scratch\n")).container.network is None
    for bad in (
        'entrypoint = "main.py"\n' + SETTINGS,
        SETTINGS + '[container]\nimage = "x"\n',
        SETTINGS + "[container]\narguments = { A = 1 }\n",
        SETTINGS + '[container]\nnetwork = "host"\n',
        SETTINGS + "[container]\nfile = 3\n",
        SETTINGS.replace('"container"', '"python3"') + '[container]\nfile = "x"\n',
    ):
        with pytest.raises(InputError):
            load_settings(write("FROM scratch\n", settings=bad))
    need_builder()
    folder = write("FROM scratch\n", settings=SETTINGS + '[container]\nfile = "../../outside"\n')
    with pytest.raises(NotFound):
        build_bundle(folder)
    (folder / "iapp.toml").write_text(SETTINGS)
    (folder / "Containerfile").unlink()
    with pytest.raises(NotFound, match="Dockerfile"):
        build_bundle(folder)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError) as missing:
        build_bundle(folder)
    assert missing.value.hint == "apt-get install podman"


def test_an_archive_on_disk_names_itself(tmp_path: Path) -> None:
    image = HandMade([layer(entry("x"))], config={"Cmd": ["/x"]})
    path = tmp_path / "image.tar"
    path.write_bytes(image.archive())
    assert load_image(path).digest.raw == image.digest
    assert load_manifest(path).runtime == "container"
    path.write_bytes(image.archive()[:2048])
    with pytest.raises(DecodeError):
        load_image(path)
    with pytest.raises(NotFound):
        load_digest(tmp_path / "none")
