"""Progress of a running iApp: what leaves the enclave, how often, and what a hostile iApp makes of it."""

from __future__ import annotations

import json
import os
import selectors
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.enclave.world import HELLO, World

from cloister.enclave.progress import ProgressPipe
from cloister.errors import VerificationError
from cloister.protocol.progress import (
    LINE_CAP,
    MESSAGE_SIZE,
    UPDATES_CAP,
    ProgressMessage,
    parse_message,
    parse_update,
    progress_info,
    verify_update,
)
from cloister.protocol.releases import ResultFormat
from cloister.sealing import envelope
from cloister.sealing.envelope import OVERHEAD, HpkePrivateKey
from cloister.sealing.results import open_result
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime

Make = Callable[..., World]
READER = HpkePrivateKey.generate(lambda size: bytes(range(size)))
SEALED = {"result_format": ResultFormat.HPKE, "result_public_key": READER.public.raw}
TELL = """
import os, time
out = int(os.environ["CLOISTER_PROGRESS_FD"])
def tell(text):
    os.write(out, text.encode() + b"\\n")
"""


class Run:
    """A pipe as the sandbox's loop drives it, on a clock of the test's."""

    def __init__(self, *, budget: int = 10**6) -> None:
        self.given: list[tuple[int, ProgressMessage]] = []
        self.pipe = ProgressPipe(lambda number, message: self.given.append((number, message)), budget=budget)
        with selectors.DefaultSelector() as selector:
            before = time.monotonic()
            self.pipe.begin(selector)
        self.started = before

    def write(self, text: str | bytes) -> None:
        os.write(self.pipe.writer, text.encode() if isinstance(text, str) else text)

    def say(self, message: str, fraction: float | None = None) -> None:
        self.write(json.dumps({"fraction": fraction, "message": message}) + "\n")

    def tick(self, seconds: float) -> None:
        # A little late, as ticks are; begin() read the clock itself.
        self.pipe.tick(self.started + seconds + 0.1)

    def end(self) -> list[str]:
        os.close(self.pipe.writer)
        self.pipe.close()
        self.pipe.close()
        return self.texts()

    def texts(self) -> list[str]:
        assert [number for number, _ in self.given] == list(range(1, len(self.given) + 1))
        return [message.message for _, message in self.given]


def test_the_newest_message_of_each_second_is_passed_on_and_the_last_one_always() -> None:
    run = Run()
    run.say("at once")
    run.tick(0.2)
    assert run.texts() == []
    run.say("later")
    run.tick(1)
    assert run.texts() == ["later"]
    run.say("too soon")
    run.tick(1.4)
    run.tick(1.8)
    assert run.texts() == ["later"]
    run.tick(2)
    assert run.texts() == ["later", "too soon"]
    run.tick(3)
    run.tick(4)
    assert len(run.texts()) == 2, "nothing new, nothing said"
    run.say("last")
    assert run.end() == ["later", "too soon", "last"]


def test_at_most_a_hundred_and_the_hundredth_is_the_last_word() -> None:
    run = Run()
    for second in range(1, 3 * UPDATES_CAP):
        run.say(str(second))
        run.tick(second)
    assert len(run.texts()) == UPDATES_CAP - 1
    run.say("the end")
    assert run.end()[-1] == "the end"
    assert len(run.given) == UPDATES_CAP


def test_garbage_is_passed_over_and_counted() -> None:
    run = Run()
    run.say("good")
    run.write(b"garbage\n\xff\n\n[1]\n" + b"x" * (3 * LINE_CAP) + b'\n{"fraction": 2}\n')
    run.tick(1)
    assert run.texts() == ["good"]
    assert run.pipe.ignored == 5
    run.write(b'{"message":"' + b"y" * 5 * LINE_CAP)
    run.tick(2)
    run.write(b'"}\n')
    run.say("still heard")
    run.write(b'{"message":"never en')
    assert run.end() == ["good", "still heard"]
    assert run.pipe.ignored == 6


def test_a_message_in_pieces_and_one_without_an_end_of_line() -> None:
    run = Run()
    run.write('{"fraction":0.5,')
    run.tick(1)
    run.write('"message":"in pieces"}\n')
    run.tick(2)
    run.write('{"message":"no end"}')
    assert run.end() == ["in pieces", "no end"]
    assert run.given[0][1].fraction == 0.5


def test_what_it_says_is_counted_and_ends_at_the_budget() -> None:
    run = Run(budget=10)
    for second, text in enumerate(("1234", "123456789", "12"), 1):
        run.say(text, 0.5 if second == 3 else None)
        run.tick(second)
    assert run.end() == ["1234", "12"]
    assert run.pipe.spent == 10
    none = Run(budget=0)
    none.say("x")
    none.tick(1)
    assert none.end() == []


def test_a_flood_costs_one_look_a_tick() -> None:
    run = Run()
    os.set_blocking(run.pipe.writer, False)
    line = b'{"message":"flood"}\n'
    with suppress(BlockingIOError):
        while True:
            os.write(run.pipe.writer, line * 100)
    run.tick(1)
    assert run.texts() == ["flood"]
    assert os.write(run.pipe.writer, line * 100) > 0, "the iApp waits for the agent, not the other way round"
    run.say("the end")
    assert run.end()[-1] == "the end"


def opened(task: World, number: int, raw: bytes) -> ProgressMessage:
    """Prove an update as a requester does, and open it."""
    update = parse_update(raw)
    enclave = verify_update(update, task.task_id, number, task.sms.address)
    assert task.outcome is not None
    assert enclave == task.outcome.enclave_challenge, "the key that the chain will name"
    if not update.sealed:
        return parse_message(update.content)
    return parse_message(envelope.open(READER, update.content, progress_info(task.task_id, enclave, number)))


def test_a_running_iapp_is_heard_by_its_requester_alone(world: Make, runtime: BubblewrapRuntime) -> None:
    code = TELL + 'tell(\'{"fraction":0.25,"message":"the secret is alice"}\')\ntime.sleep(1.3)\n'
    code += 'tell(\'{"fraction":1,"message":"done"}\')\n' + HELLO
    task = world(code, data=b"alice", **SEALED)
    task.run(runtime)
    assert [opened(task, number, raw) for number, raw in task.updates] == [
        ProgressMessage(0.25, "the secret is alice"),
        ProgressMessage(1.0, "done"),
    ]
    assert {len(raw) for _, raw in task.updates} == {152 + MESSAGE_SIZE + OVERHEAD}, "sizes tell nothing"
    assert not any(b"alice" in raw for _, raw in task.updates)
    # Swapped, or for another task, nothing opens.
    first, second = (parse_update(raw) for _, raw in task.updates)
    for update, number in ((first, 2), (second, 1)):
        with pytest.raises(VerificationError):
            verify_update(update, task.task_id, number, task.sms.address)
        info = progress_info(task.task_id, first.challenge(task.task_id, 1), number)
        with pytest.raises(VerificationError):
            envelope.open(READER, update.content, info)
    # The owner said nothing on logs, so neither they nor what the run took are in the result.
    files = task.files(b"".join(open_result(READER, [task.result], context=task.task_id.raw)))
    assert set(files) == {"result.txt", "computed.json", "receipt.cose"}


def test_progress_of_a_plain_result_is_plain_and_of_an_rsa_result_none(world: Make, runtime: BubblewrapRuntime) -> None:
    code = TELL.replace('int(os.environ["CLOISTER_PROGRESS_FD"])', 'int(os.environ.get("CLOISTER_PROGRESS_FD", 2))')
    task = world(code + 'tell(\'{"message":"hello"}\')\n' + HELLO)
    task.run(runtime)
    assert [opened(task, number, raw) for number, raw in task.updates] == [ProgressMessage(None, "hello")]
    usage = json.loads(task.files()["usage.json"])
    assert usage["exit_code"] == 0
    assert 0 < usage["seconds"] < 60
    key = rsa.generate_private_key(65537, 2048).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    sealed = world(code + "tell('{}')\n" + HELLO, result_format=ResultFormat.RSA, result_public_key=der)
    sealed.run(runtime)
    assert sealed.updates == []


def test_logs_that_the_owner_allows_are_in_the_sealed_result(world: Make, runtime: BubblewrapRuntime) -> None:
    code = "print('x' * 300 + 'alice')\n" + TELL + 'tell(\'{"message":"' + "m" * 100 + "\"}')\n" + HELLO
    task = world(code, data=b"alice", logs=True, max_result_bytes=1000, **SEALED)
    outcome = task.run(runtime)
    files = task.files(b"".join(open_result(READER, [task.result], context=task.task_id.raw)))
    assert files["stdout.txt"].endswith(b"xalice\n")
    assert {"stderr.txt", "usage.json"} <= set(files)
    assert "withheld" in outcome.logs["stderr"]
    assert outcome.logs["stdout"] == ""
    # All that leaves keeps to the owner's limit: progress, result, logs.
    tight = world(code, data=b"alice", logs=True, max_result_bytes=300, **SEALED)
    tight.run(runtime)
    files = tight.files(b"".join(open_result(READER, [tight.result], context=tight.task_id.raw)))
    assert files["result.txt"] == b"hello"
    assert sum(len(content) for name, content in files.items() if name != "receipt.cose") + 100 == 300
    # What was said already is not to be had again.
    none = world(code, data=b"alice", logs=True, max_result_bytes=150, **SEALED)
    assert none.run(runtime).cause == "APP_OUTPUT_SIZE_EXCEEDED"


HOSTILE = {
    "flood": TELL
    + """
end = time.monotonic() + 1.5
while time.monotonic() < end:
    os.write(out, b'{"message":"flood"}\\n' * 1000)
tell('{"message":"the end"}')
""",
    "garbage": TELL + "os.write(out, os.urandom(30000))\ntell('')\ntell('{\"message\":\"the end\"}')\n",
    "a held end": TELL
    + """
if os.fork() == 0:
    os.setsid()
    while True: time.sleep(60)
tell('{"message":"the end"}')
""",
    "a large pipe": TELL
    + """
import fcntl
try: fcntl.fcntl(out, 1031, 1 << 20)
except OSError: pass
os.set_blocking(out, False)
try:
    while True: os.write(out, b'{"message":"flood"}\\n' * 100)
except BlockingIOError: pass
os.set_blocking(out, True)
""",
    "a closed end": TELL + "os.close(out)\n",
    "killed": TELL + 'tell(\'{"message":"the end"}\')\nos.write(out, b\'{"mess\')\nos.kill(os.getpid(), 9)\n',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_iapp_neither_stops_the_agent_nor_says_more(
    world: Make, runtime: BubblewrapRuntime, name: str
) -> None:
    task = world(HOSTILE[name] + HELLO)
    outcome = task.run(runtime)
    assert outcome.cause == ("APP_COMPUTE_FAILED" if name == "killed" else None)
    said = [opened(task, number, raw).message for number, raw in task.updates]
    assert len(said) <= 3
    if name == "a closed end":
        assert said == []
    elif name != "a large pipe":
        assert said[-1] == "the end"


def test_the_agent_s_own_descriptors_are_not_the_iapp_s(world: Make, runtime: BubblewrapRuntime) -> None:
    code = """
import json, os
places = {name: "/proc/self/fd/" + name for name in os.listdir("/proc/self/fd")}
seen = {name: os.readlink(place) for name, place in places.items() if os.path.islink(place)}
json.dump({"seen": seen, "progress": os.environ["CLOISTER_PROGRESS_FD"]}, open("/iexec_out/result.txt", "w"))
json.dump({"deterministic-output-path": "/iexec_out/result.txt"}, open("/iexec_out/computed.json", "w"))
"""
    task = world(code)
    task.run(runtime)
    found = json.loads(task.files()["result.txt"])
    others = {name: place for name, place in found["seen"].items() if name not in ("0", "1", "2", found["progress"])}
    assert found["seen"][found["progress"]].startswith("pipe:")
    # What is left is the listing's own handle and the file being written.
    assert all(place.startswith(("/proc", "/iexec_out")) for place in others.values()), others
