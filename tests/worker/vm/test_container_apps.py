"""An app that is a container image, in a machine that has no container program: proved, unpacked and run there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.enclave.world import APP, APP_LOCATION, HELLO, build_world
from tests.support.images import HandMade, entry, folder, layer, machine_root
from tests.worker.vm.conftest import SPEC, Booted
from tests.worker.vm.test_machine import SLOW, MeasuredPlatform

from cloister.generator.bundle import BuiltBundle
from cloister.protocol.bundles import UNLABELLED
from cloister.protocol.codec import Bytes32
from cloister.protocol.releases import ReleasedApp

PROGRAM = b"""#!/bin/sh
set -e
mkdir -p /var/lib/own && id -u > /var/lib/own/user
cat /var/lib/own/user "$IEXEC_IN/$IEXEC_DATASET_FILENAME" > /iexec_out/result.txt
echo '{"deterministic-output-path":"/iexec_out/result.txt"}' > /iexec_out/computed.json
"""


@pytest.mark.nightly
@pytest.mark.timeout(SLOW + 60)
def test_an_image_runs_in_a_measured_machine(booted: Booted, tmp_path: Path) -> None:
    process = booted.runtime.launch(SPEC)  # before the task's time begins
    root = layer(*machine_root("sh", "cat", "id", "mkdir"), folder("app"), entry("app/run", PROGRAM, mode=0o755))
    image = HandMade([root], config={"Entrypoint": ["/app/run"]})
    world = build_world(MeasuredPlatform(booted), tmp_path / "app", HELLO, data=b"of a patient")
    digest, archive = Bytes32.from_raw(image.digest), image.archive()
    world.bundle = BuiltBundle(world.bundle.path, digest, len(archive), UNLABELLED)
    world.content[APP_LOCATION] = archive
    world.release = replace(world.release, app=ReleasedApp(APP, APP_LOCATION, digest))
    outcome = world.run(booted.runtime, process)
    assert outcome.cause is None, world.files()
    assert world.files()["result.txt"] == b"0\nof a patient"
