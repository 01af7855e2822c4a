"""iApps in JavaScript: the same bundle, the same sandbox, the same limits."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.enclave.world import TestPlatform, World, build_world
from tests.support.node_lock import write_node_lock

from cloister.datasets.packing import pack
from cloister.enclave.bundle import unpack_bundle
from cloister.errors import ConfigurationError, InputError, NotFound
from cloister.generator.bundle import build_bundle
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime

MODULES = Path(__file__).parent.parent / "interop" / "node_modules"
DESERIALIZER = "@iexec/dataprotector-deserializer"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
needs_clients = pytest.mark.skipif(
    not (MODULES / DESERIALIZER).is_dir(), reason=f"{DESERIALIZER} is not installed in tests/interop"
)

WRITE = """
import { writeFileSync } from 'node:fs';
const result = (value) => {
  writeFileSync('/iexec_out/result.json', JSON.stringify(value));
  writeFileSync('/iexec_out/computed.json', JSON.stringify({ 'deterministic-output-path': '/iexec_out/result.json' }));
};
"""


SPAWN = """
import { spawn } from 'node:child_process';
for (let i = 0; i < 20; i++) spawn('/bin/sleep', ['30']).on('error', () => {});
setTimeout(() => {}, 30000);
"""


def write_app(folder: Path, code: str, *, runtime: str = "node", entrypoint: str = "main.mjs", **limits: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    resources = {"memory_mib": 256, "disk_mib": 16, "seconds": 20, "processes": 8} | limits
    (folder / "iapp.toml").write_text(
        f'name = "tiny"\nversion = "1.0.0"\nentrypoint = "{entrypoint}"\nruntime = "{runtime}"\n[resources]\n'
        + "".join(f"{key} = {value}\n" for key, value in resources.items())
    )
    (folder / entrypoint).write_text(code)
    return folder


@pytest.fixture
def node_world(platform: TestPlatform, tmp_path: Path) -> Callable[..., World]:
    """A world whose app is JavaScript."""

    def make(code: str, *, packages: tuple[str, ...] = (), data: bytes | None = None, **app: object) -> World:
        folder = write_app(tmp_path / "node", code, **app)  # type: ignore[arg-type]
        if packages:
            copy_packages(packages, folder)
        built = build_bundle(folder, tmp_path / "node.bundle")
        world = build_world(platform, tmp_path / "iapp", "", data=data)
        world.content["/ipfs/QmApp"] = built.path.read_bytes()
        world.bundle = built
        world.release = replace(world.release, app=replace(world.release.app, checksum=built.digest))
        return world

    return make


def copy_packages(names: tuple[str, ...], folder: Path) -> None:
    """Copy installed packages with all that they need."""
    waiting, done = list(names), set()
    while waiting:
        name = waiting.pop()
        if name not in done:
            done.add(name)
            shutil.copytree(MODULES / name, folder / "node_modules" / name, symlinks=True)
            waiting += json.loads((MODULES / name / "package.json").read_text()).get("dependencies", {})
    (folder / "package.json").write_text(json.dumps({"type": "module", "dependencies": dict.fromkeys(names, "*")}))
    write_node_lock(folder)


@needs_node
def test_a_node_app_runs_as_the_reference_says(node_world: Callable[..., World], runtime: BubblewrapRuntime) -> None:
    code = (
        WRITE
        + """
import { readdirSync } from 'node:fs';
import net from 'node:net';
const blocked = await new Promise((done) => net.connect(53, '8.8.8.8').on('error', (e) => done(e.code)));
console.log('hello from node');
result({ argv: process.argv.slice(2), env: process.env, cwd: process.cwd(), exec: process.execArgv,
  major: process.versions.node.split('.')[0], blocked, app: readdirSync('/app') });
"""
    )
    task = node_world(code)
    task.release = replace(task.release, params=json.dumps({"iexec_args": "--name 'a b'"}))
    outcome = task.run(runtime)
    assert outcome.cause is None, outcome.logs
    files = task.files()
    seen = json.loads(files["result.json"])
    assert seen["argv"] == ["--name", "a b"]
    assert seen["cwd"] == "/app"
    assert seen["app"] == ["main.mjs"]
    assert seen["blocked"] in ("EACCES", "EPERM", "ENETUNREACH")
    assert seen["env"]["IEXEC_IN"] == "/iexec_in"
    assert not {"NODE_OPTIONS", "NODE_PATH", "PYTHONPATH"} & set(seen["env"])
    assert outcome.result_digest.raw == hashlib.sha256(files["result.json"]).digest()
    assert files["stdout.txt"] == b"hello from node\n"


@needs_node
@needs_clients
def test_iexecs_deserializer_reads_what_we_protect(
    node_world: Callable[..., World], runtime: BubblewrapRuntime
) -> None:
    data = {
        "flag": True,
        "big": 2**100 + 1,
        "real": 1.5,
        "text": "grüße",
        "raw": b"\x00\x01binary",
        "nested": {"deeper": {"text": "inside"}},
    }
    code = (
        WRITE
        + f"""
import {{ IExecDataProtectorDeserializer }} from '{DESERIALIZER}';
const reader = new IExecDataProtectorDeserializer();
const out = {{}};
for (const [path, type] of [['flag', 'bool'], ['big', 'i128'], ['real', 'f64'], ['text', 'string'],
    ['raw', 'application/octet-stream'], ['nested.deeper.text', 'string']]) {{
  const value = await reader.getValue(path, type);
  out[path] = value instanceof Uint8Array ? Buffer.from(value).toString('hex') : typeof value === 'bigint' ? `${{value}}` : value;
}}
result(out);
"""
    )
    task = node_world(code, packages=(DESERIALIZER,), data=b"".join(pack(data).chunks))
    outcome = task.run(runtime)
    assert outcome.cause is None, task.files()
    assert json.loads(task.files()["result.json"]) == {
        "flag": True,
        "big": str(2**100 + 1),
        "real": 1.5,
        "text": "grüße",
        "raw": b"\x00\x01binary".hex(),
        "nested.deeper.text": "inside",
    }


@needs_node
@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("throw new Error('no');", "APP_COMPUTE_FAILED"),
        ("const held = []; for (;;) held.push(new Array(100000).fill(0.5));", "APP_MEMORY_EXCEEDED"),
        (
            "const held = []; for (let i = 0; i < 60; i++) { held.push(Buffer.alloc(16 << 20, 1)); await null; }",
            "APP_MEMORY_EXCEEDED",
        ),
        ("for (;;) {}", "APP_COMPUTE_TIMEOUT"),
        (SPAWN, "APP_PROCESSES_EXCEEDED"),
        ("import 'express';", "APP_COMPUTE_FAILED"),
    ],
)
def test_limits_hold_for_node(
    node_world: Callable[..., World], runtime: BubblewrapRuntime, code: str, cause: str
) -> None:
    task = node_world(code, seconds=3 if "TIMEOUT" in cause else 20)
    assert task.run(runtime).cause == cause, task.files()


@needs_node
def test_workers_webassembly_and_threads_live_with_the_limits(
    node_world: Callable[..., World], runtime: BubblewrapRuntime
) -> None:
    code = (
        WRITE
        + """
import { Worker } from 'node:worker_threads';
import { pbkdf2 } from 'node:crypto';
const thread = await new Promise((done, fail) => {
  const worker = new Worker("require('node:worker_threads').parentPort.postMessage(6 * 7)", { eval: true });
  worker.on('message', done).on('error', fail);
});
const memory = new WebAssembly.Memory({ initial: 16, maximum: 1024 });
const hashed = await new Promise((done, fail) => pbkdf2('a', 'b', 10, 8, 'sha256', (e, key) => e ? fail(e) : done(key.length)));
result({ thread, pages: memory.buffer.byteLength / 65536, hashed });
"""
    )
    task = node_world(code)
    outcome = task.run(runtime)
    assert outcome.cause is None, task.files()
    assert json.loads(task.files()["result.json"]) == {"thread": 42, "pages": 16, "hashed": 8}


@needs_node
def test_another_version_is_a_mismatch_by_name(node_world: Callable[..., World], runtime: BubblewrapRuntime) -> None:
    task = node_world(WRITE + "result(1);", runtime="node7")
    assert task.run(runtime).cause == "APP_RUNTIME_MISMATCH"
    assert b"node7" in task.files()["computed.json"]


def test_no_node_is_a_mismatch_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloister.enclave import runtimes
    from cloister.enclave.causes import AppError

    built = build_bundle(write_app(tmp_path / "app", "1;"), tmp_path / "a.bundle")
    bundle = unpack_bundle([built.path.read_bytes()], tmp_path / "out", expected_digest=built.digest.raw)
    monkeypatch.setattr(runtimes, "NODE_PLACES", (str(tmp_path / "none"),))
    with pytest.raises(AppError, match="the app needs node and this enclave has no node") as refused:
        runtimes.find_interpreter(bundle, ())
    assert refused.value.cause == "APP_RUNTIME_MISMATCH"


@needs_node
def test_an_operators_own_node_is_found(
    node_world: Callable[..., World], platform: TestPlatform, tmp_path: Path
) -> None:
    prefix = tmp_path / "node-release"
    (prefix / "bin").mkdir(parents=True)
    node = shutil.which("node")
    assert node is not None
    shutil.copy(Path(node).resolve(), prefix / "bin" / "node")
    started = BubblewrapRuntime(node_prefix=prefix)
    try:
        task = node_world(WRITE + "result(process.execPath);")
        task.run(started)
        assert json.loads(task.files()["result.json"]) == "/opt/node/bin/node"
    finally:
        started.close()
    with pytest.raises(ConfigurationError, match="there is no bin/node in"):
        BubblewrapRuntime(node_prefix=tmp_path)


def test_bundle_of_node_modules_is_the_same_each_time(tmp_path: Path) -> None:
    digests = set()
    for attempt in range(2):
        folder = write_app(tmp_path / f"app{attempt}", "import 'a';")
        (folder / "package.json").write_text('{"dependencies": {"a": "*", "@s/b": "*"}}')
        names = ["a", "@s/b"]
        for name in names if attempt else reversed(names):
            package = folder / "node_modules" / name
            package.mkdir(parents=True)
            (package / "package.json").write_text('{"version": "1.0.0"}')
            (package / "index.js").write_text(f"// {name}")
            (package / "index.js.map").write_text(str(attempt))
            (package / "types.d.ts").write_text(str(attempt))
        (folder / "node_modules" / ".bin").mkdir()
        (folder / "node_modules" / ".bin" / "a").symlink_to("../a/index.js")
        (folder / "node_modules" / ".package-lock.json").write_text(str(attempt))
        write_node_lock(folder)
        digests.add(build_bundle(folder, tmp_path / f"{attempt}.bundle").digest)
    assert len(digests) == 1
    built = tmp_path / "0.bundle"
    bundle = unpack_bundle([built.read_bytes()], tmp_path / "out", expected_digest=digests.pop().raw)
    names = sorted(path.relative_to(bundle.root).as_posix() for path in bundle.root.rglob("*") if path.is_file())
    assert names == [
        "lib/node_modules/@s/b/index.js",
        "lib/node_modules/@s/b/package.json",
        "lib/node_modules/a/index.js",
        "lib/node_modules/a/package.json",
        "src/main.mjs",
        "src/package.json",
    ]


def test_what_may_not_be_in_a_node_bundle(tmp_path: Path) -> None:
    folder = write_app(tmp_path / "app", "1;")
    (folder / "package.json").write_text('{"dependencies": {"left-pad": "*"}}')
    write_node_lock(folder, {"node_modules/left-pad": "1.0.0"})
    with pytest.raises(NotFound, match="package left-pad is not installed") as missing:
        build_bundle(folder, tmp_path / "a.bundle")
    assert missing.value.hint is not None
    assert "npm ci" in missing.value.hint
    (folder / "package.json").write_text('{"dependencies": {"../../etc": "*"}}')
    with pytest.raises(InputError, match="is not a plain relative path"):
        build_bundle(folder, tmp_path / "a.bundle")
    (folder / "package.json").write_text("{")
    with pytest.raises(InputError, match="is no json"):
        build_bundle(folder, tmp_path / "a.bundle")
    (folder / "package.json").write_text('{"dependencies": {"a": "*"}}')
    (folder / "node_modules" / "a").mkdir(parents=True)
    (folder / "node_modules" / "a" / "package.json").write_text('{"version": "1.0.0"}')
    (folder / "node_modules" / "a" / "linked").symlink_to("/etc")
    write_node_lock(folder)
    with pytest.raises(InputError, match="is a symbolic link"):
        build_bundle(folder, tmp_path / "a.bundle")
