"""Images in a real enclave: as they were made for iExec, with every kind of thing an ordinary image does."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.enclave.world import APP, APP_LOCATION, DATASET, HELLO, World
from tests.support.images import HandMade, entry, folder, layer, machine_root, symlink

from cloister.generator.bundle import BuiltBundle
from cloister.protocol.bundles import LABEL, UNLABELLED, Manifest, Resources, build_manifest
from cloister.protocol.codec import Bytes32
from cloister.protocol.releases import ReleasedApp
from cloister.worker.relay import EnclaveFailed
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime

Make = Callable[..., World]

IEXEC_APP = rb"""#!/bin/sh
# Made for iExec: it knows reference 6.1 and nothing of this project.
set -e
cat "$IEXEC_IN/$IEXEC_DATASET_FILENAME" > "$IEXEC_OUT/seen.txt"
{
  echo "args=$*"
  echo "task=$IEXEC_TASK_ID index=$IEXEC_TASK_INDEX of $IEXEC_BOT_SIZE"
  echo "secret=$IEXEC_REQUESTER_SECRET_1 app=$IEXEC_APP_DEVELOPER_SECRET"
  echo "greeting=$GREETING out=$IEXEC_OUT user=$(id -u):$(id -g) home=$HOME here=$(pwd)"
} > "$IEXEC_OUT/result.txt"
echo '{"deterministic-output-path":"/iexec_out/result.txt"}' > "$IEXEC_OUT/computed.json"
"""

COMPUTED = """echo '{"deterministic-output-path":"/iexec_out/result.txt"}' > /iexec_out/computed.json\n"""


@pytest.fixture(scope="module")
def base() -> bytes:
    """A lowest layer with a shell, as every base image is one."""
    accounts = b"root:x:0:0:root:/root:/bin/sh\nnode:x:1234:1235::/home/node:/bin/sh\n"
    return layer(
        *machine_root("sh", "cat", "ls", "id", "env", "mkdir", "rm", "dd", "grep"),
        folder("etc"),
        entry("etc/passwd", accounts),
        entry("etc/group", b"root:x:0:\nnode:x:1235:\n"),
        folder("home/node", 0o700),
        folder("root", 0o700),
        folder("tmp", 0o1777),
    )


def run_image(
    world: Make, image: HandMade, runtime: BubblewrapRuntime, *, tamper: bytes | None = None, **release: object
) -> World:
    """One task whose app is this image."""
    made = world(HELLO, **release)
    digest = Bytes32.from_raw(image.digest)
    archive = image.archive() if tamper is None else tamper
    made.bundle = BuiltBundle(made.bundle.path, digest, len(archive), UNLABELLED)
    made.content[APP_LOCATION] = archive
    made.release = replace(made.release, app=ReleasedApp(APP, APP_LOCATION, digest))
    made.run(runtime)
    return made


def shell(base: bytes, script: str, **config: object) -> HandMade:
    """An image that runs a script of the shell."""
    settings = {"Entrypoint": ["/bin/sh", "-c", f"set -e\n{script}{COMPUTED}"], **config}
    return HandMade([base], config=settings)


def test_an_image_that_was_made_for_iexec_runs_as_it_is(world: Make, runtime: BubblewrapRuntime, base: bytes) -> None:
    image = HandMade(
        [base, layer(folder("app"), entry("app/run.sh", IEXEC_APP, mode=0o755))],
        config={
            "Entrypoint": ["/app/run.sh", "first"],
            "Cmd": ["replaced"],
            "Env": ["GREETING=hello", "IEXEC_OUT=/elsewhere"],
            "WorkingDir": "/app",
            "User": "node",
        },
    )
    done = run_image(
        world,
        image,
        runtime,
        data=b"protected words",
        params=json.dumps({"iexec_args": "second 'third word'"}),
        requester_secrets={"1": "mine"},
        app_secret="the app's",
    )
    files = done.files()
    assert done.outcome is not None
    assert done.outcome.cause is None, files.get("error.txt")
    assert done.bundle.digest.raw == image.digest
    assert files["seen.txt"] == b"protected words"
    told = files["result.txt"].decode().splitlines()
    assert told == [
        "args=first second third word",
        f"task={done.task_id} index=1 of 2",
        "secret=mine app=the app's",
        "greeting=hello out=/iexec_out user=1234:1235 home=/home/node here=/app",
    ]
    assert str(DATASET).lower() not in files


def test_it_may_write_where_it_wants_and_runs_as_root_without_rights(
    world: Make, runtime: BubblewrapRuntime, base: bytes
) -> None:
    script = """
    mkdir -p /var/lib/thing /srv/.cache /app
    echo kept > /var/lib/thing/file; echo x > /etc/own; echo y > /srv/.cache/z; rm /etc/group
    { id -u; cat /var/lib/thing/file; grep CapEff /proc/self/status; ls /dev /opt/cloister/cloister; cat /etc/hosts; env
      mkdir /proc/x /opt/cloister/cloister/datasets/y /iexec_in/z 2>&1 || true; } > /iexec_out/result.txt
    """
    done = run_image(world, shell(base, script), runtime)
    assert done.outcome is not None
    text = done.files()["result.txt"].decode()
    assert done.outcome.cause is None, text
    lines = text.splitlines()
    assert lines[:2] == ["0", "kept"]
    assert lines[2].split() == ["CapEff:", "0000000000000000"]
    assert {"null", "urandom", "shm", "datasets", "iapp"} <= set(lines)
    assert "127.0.0.1\tlocalhost iapp" in lines
    assert "HOME=/root" in lines
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in lines
    assert not [line for line in lines if line.startswith(("PYTHONPATH=", "TMPDIR="))]
    assert sum("annot create" in line for line in lines) == 3


def test_what_an_image_says_of_its_environment_moves_only_its_own_program(
    world: Make, runtime: BubblewrapRuntime, base: bytes
) -> None:
    """LD_PRELOAD would otherwise be the launcher's too, which runs outside the sandbox."""
    script = 'echo "$LD_PRELOAD $BASH_FUNC_x $IEXEC_TASK_INDEX" > /iexec_out/result.txt\n'
    image = shell(base, script, Env=["LD_PRELOAD=/tmp/bundle/files/1", "IEXEC_TASK_INDEX=7", "BASH_FUNC_x=() { :; }"])
    done = run_image(world, image, runtime)
    assert done.files()["result.txt"] == b"/tmp/bundle/files/1 () { :; } 1\n"


def test_limits_of_the_label_hold(world: Make, runtime: BubblewrapRuntime, base: bytes) -> None:
    limits = Resources(memory_mib=64, disk_mib=8, seconds=20, processes=16)
    label = build_manifest(Manifest("own", "1", "", "container", limits)).decode()
    script = "dd if=/dev/zero of=/var/full bs=65536 count=10000\n"
    done = run_image(world, shell(base, f"mkdir -p /var\n{script}", Labels={LABEL: label}), runtime)
    assert done.outcome is not None
    assert done.outcome.cause == "APP_DISK_EXCEEDED", done.files()


def test_an_endless_image_is_ended_by_its_own_seconds(world: Make, runtime: BubblewrapRuntime, base: bytes) -> None:
    label = build_manifest(Manifest("own", "1", "", "container", Resources(seconds=1))).decode()
    done = run_image(world, shell(base, "while :; do :; done\n", Labels={LABEL: label}), runtime)
    assert done.outcome is not None
    assert done.outcome.cause == "APP_COMPUTE_TIMEOUT"


def test_a_program_alone_without_shell_or_libraries(world: Make, runtime: BubblewrapRuntime, tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    (tmp_path / "one.c").write_text(
        """#include <stdio.h>
        #include <unistd.h>
        int main(int n, char **v) {
          FILE *f = fopen("/iexec_out/result.txt", "w"); fprintf(f, "%s %d", n > 1 ? v[1] : "none", (int)getuid()); fclose(f);
          f = fopen("/iexec_out/computed.json", "w");
          fputs("{\\"deterministic-output-path\\":\\"/iexec_out/result.txt\\"}", f); fclose(f); return 0; }"""
    )
    subprocess.run([compiler, "-static", "-o", tmp_path / "one", tmp_path / "one.c"], check=True, capture_output=True)
    program = layer(entry("one", (tmp_path / "one").read_bytes(), mode=0o111))
    image = HandMade([program], config={"Cmd": ["/one", "alone"], "User": "4000000"}, packed=False, media=PLAIN)
    done = run_image(world, image, runtime)
    assert done.files()["result.txt"] == b"alone 4000000"


PLAIN = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar",
)


def test_a_program_that_is_not_there_is_the_images_fault(world: Make, runtime: BubblewrapRuntime, base: bytes) -> None:
    done = run_image(world, HandMade([base], config={"Entrypoint": ["/no/such"]}), runtime)
    assert done.outcome is not None
    assert done.outcome.cause == "APP_COMPUTE_FAILED"
    done = run_image(world, HandMade([base]), runtime)
    assert done.outcome is not None
    assert done.outcome.cause == "APP_COMPUTE_FAILED"


@pytest.mark.parametrize("wrong", ["another image", "a changed byte", "cut short", "not for this machine"])
def test_an_image_that_is_not_the_one_on_chain_never_runs(
    world: Make, runtime: BubblewrapRuntime, base: bytes, wrong: str
) -> None:
    image = shell(base, "echo x > /iexec_out/result.txt\n")
    archive = image.archive()
    match wrong:
        case "another image":
            archive = shell(base, "echo y > /iexec_out/result.txt\n").archive()
        case "a changed byte":
            at = archive.index(image.blobs[max(image.blobs, key=lambda name: len(image.blobs[name]))]) + 100
            archive = archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :]
        case "cut short":
            archive = archive[: len(archive) // 2]
        case _:
            image = HandMade([base], config=image.config, platform=("linux", "s390x"))
            archive = image.archive()
    with pytest.raises(EnclaveFailed) as failure:
        run_image(world, image, runtime, tamper=archive)
    assert failure.value.cause == "APP_IMAGE_REFUSED"
    assert hashlib.sha256(archive).digest() != image.digest


def test_links_of_an_image_lead_nowhere_outside_of_it(world: Make, runtime: BubblewrapRuntime, base: bytes) -> None:
    """What is written over a link lands in the image; what is read through one is the image's own."""
    crossing = layer(
        symlink("out", "/iexec_out"), symlink("up", "../../../../tmp"), symlink("opt", "/"), symlink("proc", "/etc")
    )
    over = layer(entry("up/agent.py", b"image"), entry("out/planted", b"image"), entry("opt/cloister", b"image"))
    script = "cat /tmp/agent.py /cloister > /iexec_out/result.txt; ls /iexec_out >> /iexec_out/result.txt\n"
    image = HandMade([base, crossing, over], config=shell(base, script).config)
    done = run_image(world, image, runtime)
    assert done.files()["result.txt"] == b"imageimageresult.txt\n"
