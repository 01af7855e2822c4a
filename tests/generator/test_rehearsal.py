"""A rehearsal gives an iApp what production gives it, and fails where production fails, with the same named cause."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.generator.conftest import Project, Rehearse

from cloister.enclave.causes import Cause
from cloister.errors import InputError, NotFound
from cloister.generator.rehearsal import Rehearsal, Stage, rehearse
from cloister.generator.rehearsal.outcome import find_warnings
from cloister.protocol.bundles import Manifest, Resources

LOOK = """
from cloister.datasets.reader import ProtectedDataReader, load_bulk
e, seen = os.environ, {"args": sys.argv[1:]}
seen["secret"], seen["app secret"] = e.get("IEXEC_REQUESTER_SECRET_2"), e.get("IEXEC_APP_DEVELOPER_SECRET")
if e["IEXEC_DATASET_ADDRESS"].strip("0x"):
    with ProtectedDataReader() as data:
        seen["data"] = {entry.path: data.read(entry.path) for entry in data.entries()}
seen["inputs"] = [open(f'{e["IEXEC_IN"]}/{e[f"IEXEC_INPUT_FILE_NAME_{n}"]}').read()
                  for n in range(1, int(e["IEXEC_INPUT_FILES_NUMBER"]) + 1)]
size = int(e.get("IEXEC_BULK_SLICE_SIZE", 0))
seen["bulk"] = [os.path.exists(f'{e["IEXEC_IN"]}/{e[f"IEXEC_DATASET_{n}_FILENAME"]}') for n in range(1, size + 1)]
os.write(int(e["CLOISTER_PROGRESS_FD"]), b'{"fraction": 0.5, "message": "half way"}\\n')
print("looked around")
write("seen.json", json.dumps(seen))
done("seen.json")
"""


def test_all_that_a_request_can_hold_reaches_the_app_and_its_result_comes_back_proven(
    run: Rehearse, tmp_path: Path
) -> None:
    given = tmp_path / "colours.csv"
    given.write_text("red,green")
    ended = run(
        LOOK,
        more='purposes = ["research"]',
        how={
            "args": "one 'two three'",
            "data": {"user": {"age": 41}, "email": "ada@example.org"},
            "input_files": [given],
            "secrets": {2: "hush"},
            "app_secret": "psst",
            "purpose": "research",
        },
    )
    assert (ended.cause, ended.message, ended.exit_code) == (None, "", 0)
    assert ended.json("seen.json") == {
        "args": ["one", "two three"],
        "secret": "hush",
        "app secret": "psst",
        "data": {"user/age": 41, "email": "ada@example.org"},
        "inputs": ["red,green"],
        "bulk": [],
    }
    assert ended.stdout == "looked around\n"
    assert ended.progress == ((0.5, "half way"),)
    assert ended.receipt is not None
    assert ended.receipt.simulated
    assert ended.receipt.claims.dataset is not None
    assert "SIMULATED" in ended.notice
    assert 0 < ended.seconds < 20
    assert ended.unmet == ()
    with pytest.raises(NotFound, match=r"no other\.txt"):
        ended.read("other.txt")


def test_private_files_are_opened_in_the_enclave_and_their_key_stays_there(run: Rehearse, tmp_path: Path) -> None:
    given = tmp_path / "mine.csv"
    given.write_text("blue")
    ended = run(LOOK, how={"private_files": [given], "secrets": {1: "one"}})
    assert ended.cause is None, ended.stderr
    assert (ended.json("seen.json")["inputs"], ended.json("seen.json")["secret"]) == (["blue"], None)
    with pytest.raises(InputError, match="all private or all public"):
        run(LOOK, how={"private_files": [given], "input_files": [given]})


def test_a_bulk_goes_on_without_the_item_that_its_owner_refuses(run: Rehearse) -> None:
    ended = run(LOOK, how={"bulk": [{"a": 1}, None, {"a": 2}]})
    assert ended.cause is None, ended.stderr
    assert ended.json("seen.json")["bulk"] == [True, False, True]
    assert [item["status"] for item in ended.json("bulk.json")] == ["ok", "failed", "ok"]


def test_a_purpose_is_asked_by_owners_only_and_refuses_items_of_a_bulk_one_by_one(run: Rehearse) -> None:
    assert run(LOOK, how={"purpose": "marketing"}).cause is None
    ended = run(LOOK, how={"purpose": "marketing", "bulk": [{"a": 1}, {"a": 2}]})
    assert ended.cause is None, ended.stderr
    assert [item["cause"] for item in ended.json("bulk.json")] == ["app-purpose-refused"] * 2


def test_what_production_may_not_like_is_warned_of() -> None:
    manifest = Manifest("tiny", "1", "main.py", resources=Resources(memory_mib=100, seconds=1000))
    warned = find_warnings(Rehearsal(None, "", manifest, seconds=400.0, peak_memory_bytes=90 << 20), 0)
    assert warned == (
        "it ran 400 seconds; category 0 is for 300",
        "it used 90 of the 100 MiB that its manifest asks for",
    )
    assert find_warnings(Rehearsal(None, "", manifest, seconds=900.0), 1) == (
        "it ran 900.0 of the 1000 seconds that its manifest asks for",
    )
    assert find_warnings(Rehearsal(None, "", manifest, seconds=1.0), 0) == ()


def test_mock_run_says_what_nobody_else_says(project: Project, stage: Stage) -> None:
    folder = project(
        LOOK,
        run="""
            args = "from the file"
            data = "people/ada.json"
            input_files = ["x.csv"]
            [secrets]
            2 = "of the file"
            [expect]
            files = ["seen.json", "plot.png"]
        """,
    )
    (folder / "mock" / "people").mkdir()
    (folder / "mock" / "people" / "ada.json").write_text('{"age": 36}')
    (folder / "mock" / "x.csv").write_text("1,2")
    seen = rehearse(folder, stage=stage).json("seen.json")
    assert (seen["args"], seen["secret"], seen["data"]) == (["from", "the", "file"], "of the file", {"age": 36})
    other = rehearse(folder, stage=stage, args="mine", input_files=[])
    assert (other.json("seen.json")["args"], other.json("seen.json")["inputs"]) == (["mine"], [])
    assert other.unmet == ("expected a result file plot.png, and there is none",)
    alone = rehearse(folder, stage=stage, defaults=False)
    assert (alone.json("seen.json")["args"], alone.unmet) == ([], ())


def test_a_callback_reaches_the_caller_and_its_lack_is_named(run: Rehearse) -> None:
    code = """write("computed.json", json.dumps({"callback-data": "0x2a"}))"""
    assert run(code, how={"callback": True}).callback == b"\x2a"
    lacking = run('write("x", "x"); done("x")', how={"callback": True})
    assert lacking.cause == Cause.POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED


FAILURES = [
    ('write("x", "x")', {}, {}, Cause.POST_COMPUTE_COMPUTED_FILE_NOT_FOUND),
    ('done("missing.txt")', {}, {}, Cause.POST_COMPUTE_RESULT_FILE_NOT_FOUND),
    ('write("n" * 32, "x"); done("n" * 32)', {}, {}, Cause.POST_COMPUTE_TOO_LONG_RESULT_FILE_NAME),
    ('write("receipt.cose", "x"); done("receipt.cose")', {}, {}, Cause.APP_OUTPUT_NAME_REFUSED),
    ('os.symlink("/etc/passwd", f"{OUT}/x"); done("x")', {}, {}, Cause.APP_OUTPUT_NOT_A_FILE),
    ('write("x", "x" * 2000); done("x")', {}, {"max_result_bytes": 1000}, Cause.APP_OUTPUT_SIZE_EXCEEDED),
    ('write("x", "x" * (51 << 20)); done("x")', {"disk_mib": 64}, {}, Cause.APP_OUTPUT_SIZE_EXCEEDED),
    ('write("x", "x" * (17 << 20)); done("x")', {}, {}, Cause.APP_DISK_EXCEEDED),
    ("time.sleep(20)", {"seconds": 1}, {}, Cause.APP_COMPUTE_TIMEOUT),
    ("held = bytearray(os.urandom(1)) * (200 << 20); time.sleep(5)", {}, {}, Cause.APP_MEMORY_EXCEEDED),
    (
        "import subprocess\nheld = [subprocess.Popen(['/bin/sleep', '5']) for _ in range(12)]\ntime.sleep(5)",
        {"processes": 4},
        {},
        Cause.APP_PROCESSES_EXCEEDED,
    ),
    ("sys.exit(3)", {}, {}, Cause.APP_COMPUTE_FAILED),
    (
        'write("x", "x"); done("x")',
        {},
        {"input_files": ["http://127.0.0.1:9/x"]},
        Cause.PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED,
    ),
    ('write("x", "x"); done("x")', {}, {"purpose": "marketing", "data": {"a": 1}}, Cause.TEE_SESSION_REFUSED),
]


@pytest.mark.parametrize(
    ("code", "resources", "how", "cause"), FAILURES, ids=[str(row[3]) + row[0][:12] for row in FAILURES]
)
def test_what_production_refuses_is_refused_with_the_same_named_cause(
    run: Rehearse, code: str, resources: dict[str, int], how: dict[str, object], cause: Cause
) -> None:
    ended = run(code, how=how, **resources)
    assert ended.cause == cause, (ended.message, ended.stderr)
    assert ended.message
    assert ended.unmet


def test_a_runtime_that_the_enclave_does_not_have_is_named(run: Rehearse, project: Project, stage: Stage) -> None:
    folder = project("", more='runtime = "node199"\nentrypoint = "main.mjs"')
    (folder / "main.mjs").write_text("")
    ended = rehearse(folder, stage=stage)
    assert ended.cause == Cause.APP_RUNTIME_MISMATCH
    assert "node199" in ended.message


def test_an_app_without_hosts_reaches_nothing_and_the_exit_code_is_told(run: Rehearse) -> None:
    ended = run("import socket\nsocket.create_connection(('127.0.0.1', 22), 2)", how={"data": {"a": 1}})
    assert (ended.cause, ended.exit_code) == (Cause.APP_COMPUTE_FAILED, 1)
    assert "OSError" in ended.stderr or "Error" in ended.stderr


CALL = """
import socket
host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
with socket.create_connection((host, int(port)), 10) as line:
    line.sendall(b"CONNECT rates.example.org:443 HTTP/1.1\\r\\nHost: rates.example.org:443\\r\\n\\r\\n")
    assert b" 200 " in line.recv(4096)
    line.sendall(b"what is it?")
    write("rate.txt", line.recv(100).decode())
done("rate.txt")
"""
SERVER = """
import socket, subprocess, sys
subprocess.Popen(["sleep", "1234567"])
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        line, _ = server.accept()
        with line:
            if line.recv(100):
                line.sendall(b"1.09")
"""


def test_a_mock_server_stands_where_a_host_would_and_is_ended(project: Project, stage: Stage) -> None:
    folder = project(
        CALL, more='network = ["rates.example.org:443"]', run='[connect]\n"rates.example.org:443" = "api.py"'
    )
    (folder / "mock" / "api.py").write_text(SERVER)
    ended = rehearse(folder, stage=stage)
    assert ended.cause is None, (ended.message, ended.stderr)
    assert ended.read("rate.txt") == b"1.09"
    deadline = time.monotonic() + 10
    while _is_running(str(folder), "sleep\x001234567") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(str(folder), "sleep\x001234567")


def _is_running(*words: str) -> bool:
    """Whether a process has one of these in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            line = path.read_text(errors="replace")
            if any(word in line for word in words):
                return True
    return False


@pytest.mark.parametrize(
    ("connect", "problem"),
    [
        ({"rates.example.org": "api.py"}, "no host with a port"),
        ({"rates.example.org:443": "missing.py"}, "there is no"),
        ({"rates.example.org:443": "ends.py"}, "ended before it listened: sorry"),
    ],
)
def test_a_mock_server_that_cannot_be_is_told_at_once(
    project: Project, stage: Stage, connect: dict[str, str], problem: str
) -> None:
    from cloister.errors import CloisterError

    folder = project('done("x")', run="")
    (folder / "mock" / "ends.py").write_text("print('sorry')")
    with pytest.raises(CloisterError, match=problem):
        rehearse(folder, stage=stage, connect=connect)


def test_what_cannot_be_rehearsed_is_said_in_plain_words(project: Project, stage: Stage, tmp_path: Path) -> None:
    folder = project('done("x")')
    with pytest.raises(NotFound, match=r"iapp\.toml"):
        rehearse(tmp_path / "nowhere", stage=stage)
    with pytest.raises(NotFound, match="there is no"):
        rehearse(folder, stage=stage, data="missing.json")
    with pytest.raises(InputError, match="both given"):
        rehearse(folder, stage=stage, data={"a": 1}, bulk=[{"a": 1}])
    with pytest.raises(InputError, match="no category 9"):
        rehearse(folder, stage=stage, category=9)


def test_what_is_packed_already_is_taken_as_it_is(run: Rehearse, tmp_path: Path) -> None:
    from cloister.datasets.packing import pack

    packed = tmp_path / "packed.zip"
    packed.write_bytes(b"".join(pack({"name": "Ada"}).chunks))
    assert run(LOOK, how={"data": packed}).json("seen.json")["data"] == {"name": "Ada"}


def test_a_failure_that_was_expected_is_no_failure(run: Rehearse) -> None:
    expected = run("sys.exit(1)", run='[expect]\ncause = "APP_COMPUTE_FAILED"')
    assert (expected.cause, expected.unmet) == (Cause.APP_COMPUTE_FAILED, ())
    assert json.loads(expected.files["computed.json"])["deterministic-output-path"] == "/iexec_out/error.txt"
