"""What iExec's iApps count on (reference 6.1), each line of it: apps that know of nothing but variables and files, in
Python and in JavaScript.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.enclave.test_bulk import Slice, bulk_world
from tests.enclave.test_node import DESERIALIZER, WRITE, needs_clients, needs_node, node_world  # noqa: F401
from tests.enclave.world import DATASET, World

from cloister.datasets.packing import pack
from cloister.enclave.environment import input_file_name
from cloister.protocol.releases import RefusedDataset
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime

Make = Callable[..., World]

FIRST, SECOND = "https://example.org/a.csv", "https://example.org/b?c=d"
DATA = b"".join(pack({"secretText": "the owner's", "age": 41}).chunks)

PYTHON = """
import json, os, sys, zipfile
env = {name: text for name, text in os.environ.items() if name.startswith("IEXEC_")}
folder = env["IEXEC_IN"]
size = int(env.get("IEXEC_BULK_SLICE_SIZE", "0"))
names = [env[f"IEXEC_DATASET_{i}_FILENAME"] for i in range(1, size + 1)] or [env["IEXEC_DATASET_FILENAME"]]
paths = [os.path.join(folder, name) for name in names]
data = [zipfile.ZipFile(path).namelist() if os.path.isfile(path) else None for path in paths]
count = int(env["IEXEC_INPUT_FILES_NUMBER"])
files = [os.path.join(env["IEXEC_INPUT_FILES_FOLDER"], env[f"IEXEC_INPUT_FILE_NAME_{i}"]) for i in range(1, count + 1)]
seen = {"env": env, "args": sys.argv[1:], "data": data, "files": [open(file).read() for file in files]}
with open(os.path.join(env["IEXEC_OUT"], "result.json"), "w") as file:
    json.dump(seen, file)
with open(os.path.join(env["IEXEC_OUT"], "computed.json"), "w") as file:
    json.dump({"deterministic-output-path": os.path.join(env["IEXEC_OUT"], "result.json")}, file)
print("done")
"""

JAVASCRIPT = (
    WRITE
    + f"""
import {{ readFileSync }} from 'node:fs';
import {{ IExecDataProtectorDeserializer }} from '{DESERIALIZER}';
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith('IEXEC_')));
const read = async (options) => {{
  try {{ return [await new IExecDataProtectorDeserializer(options).getValue('secretText', 'string')]; }}
  catch (e) {{ return null; }}
}};
const size = Number(env.IEXEC_BULK_SLICE_SIZE ?? '0');
const data = [];
if (size === 0) data.push(await read());
for (let i = 1; i <= size; i += 1)
  data.push(await read({{ protectedDataPath: `${{env.IEXEC_IN}}/${{env[`IEXEC_DATASET_${{i}}_FILENAME`]}}` }}));
const files = [];
for (let i = 1; i <= Number(env.IEXEC_INPUT_FILES_NUMBER); i += 1)
  files.push(readFileSync(`${{env.IEXEC_INPUT_FILES_FOLDER}}/${{env[`IEXEC_INPUT_FILE_NAME_${{i}}`]}}`, 'utf8'));
result({{ env, args: process.argv.slice(2), data, files }});
console.log('done');
"""
)

languages = pytest.mark.parametrize(
    "language", ["python", pytest.param("javascript", marks=[needs_node, needs_clients])]
)


@pytest.fixture
def make(world: Make, node_world: Make) -> Make:  # noqa: F811
    """A task of an app that knows variables and files only."""

    def build(language: str, *, data: bytes | None = None, inputs: dict[str, bytes] | None = None) -> World:
        if language == "python":
            return world(PYTHON, data=data, inputs=inputs)
        task = node_world(JAVASCRIPT, packages=(DESERIALIZER,), data=data)
        task.content |= inputs or {}
        return task

    return build


def result_of(task: World, runtime: BubblewrapRuntime) -> dict[str, object]:
    outcome = task.run(runtime)
    assert outcome.cause is None, (outcome.logs, task.files())
    found = task.files()["result.json" if "result.json" in task.files() else "out.json"]
    assert outcome.result_digest.raw == hashlib.sha256(found).digest()
    seen: dict[str, object] = json.loads(found)
    return seen


@languages
def test_an_app_that_is_given_everything(make: Make, runtime: BubblewrapRuntime, language: str) -> None:
    task = make(language, data=DATA, inputs={FIRST: b"x,y", SECOND: b"zweite"})
    params = {
        "iexec_args": "--name 'Ada L'",
        "iexec_input_files": [FIRST, SECOND],
        "iexec_secrets": {"1": "a", "12": "b"},
    }
    task.release = replace(
        task.release,
        params=json.dumps(params),
        requester_secrets={"1": "mine", "12": "mine too"},
        app_secret="the developer's",
    )
    seen = result_of(task, runtime)
    assert seen["env"] == {
        "IEXEC_TASK_ID": str(task.task_id),
        "IEXEC_DEAL_ID": "0x" + "77" * 32,
        "IEXEC_TASK_INDEX": "1",
        "IEXEC_IN": "/iexec_in",
        "IEXEC_OUT": "/iexec_out",
        "IEXEC_BOT_SIZE": "2",
        "IEXEC_BOT_FIRST_INDEX": "0",
        "IEXEC_BOT_TASK_INDEX": "1",
        "IEXEC_DATASET_ADDRESS": DATASET.lower(),
        "IEXEC_DATASET_FILENAME": DATASET.lower(),
        "IEXEC_INPUT_FILES_NUMBER": "2",
        "IEXEC_INPUT_FILES_FOLDER": "/iexec_in",
        "IEXEC_INPUT_FILE_NAME_1": input_file_name(FIRST),
        "IEXEC_INPUT_FILE_NAME_2": input_file_name(SECOND),
        "IEXEC_APP_DEVELOPER_SECRET": "the developer's",
        "IEXEC_APP_DEVELOPER_SECRET_1": "the developer's",
        "IEXEC_REQUESTER_SECRET_1": "mine",
        "IEXEC_REQUESTER_SECRET_12": "mine too",
    }
    assert input_file_name(FIRST) == "0x" + hashlib.sha256(FIRST.encode()).hexdigest()
    assert seen["args"] == ["--name", "Ada L"]
    assert seen["files"] == ["x,y", "zweite"]
    assert seen["data"] == [["secretText", "age"] if language == "python" else ["the owner's"]]


@languages
def test_an_app_that_is_given_nothing(make: Make, runtime: BubblewrapRuntime, language: str) -> None:
    seen = result_of(make(language), runtime)
    zero = "0x" + "0" * 40
    env = seen["env"]
    assert isinstance(env, dict)
    assert (env["IEXEC_DATASET_ADDRESS"], env["IEXEC_DATASET_FILENAME"]) == (zero, zero)
    assert env["IEXEC_INPUT_FILES_NUMBER"] == "0"
    assert not {name for name in env if "SECRET" in name or "BULK" in name or "FILE_NAME" in name}
    assert (seen["args"], seen["data"], seen["files"]) == ([], [None], [])


@languages
def test_an_app_that_is_given_many(make: Make, runtime: BubblewrapRuntime, language: str) -> None:
    items = Slice()
    items.add(DATA)
    items.items.append(RefusedDataset(DATASET, "order-closed", "the grant was revoked"))
    items.add(DATA)
    task = make(language)
    bulk = bulk_world(lambda _, **release: replace_release(task, release), items)
    seen = result_of(bulk, runtime)
    env = seen["env"]
    assert isinstance(env, dict)
    assert env["IEXEC_BULK_SLICE_SIZE"] == "3"
    assert [env[f"IEXEC_DATASET_{number}_FILENAME"] for number in (1, 2, 3)] == [
        item.address.lower() for item in items.items
    ]
    whole = ["secretText", "age"] if language == "python" else ["the owner's"]
    assert seen["data"] == [whole, None, whole]


def replace_release(task: World, release: dict[str, object]) -> World:
    task.release = replace(task.release, **release)  # type: ignore[arg-type]
    return task
