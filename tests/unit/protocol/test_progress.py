"""Progress on its way out of an enclave: one size, signed, bound to task and number."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import CloisterError, DecodeError, InputError, VerificationError
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.progress import (
    LINE_CAP,
    MESSAGE_CAP,
    MESSAGE_SIZE,
    UPDATE_CAP,
    ProgressMessage,
    ProgressUpdate,
    build_message,
    build_update,
    parse_line,
    parse_message,
    parse_update,
    progress_digest,
    progress_info,
    verify_update,
)
from cloister.protocol.signatures import PrivateKey
from cloister.sealing.envelope import OVERHEAD

TASK, OTHER_TASK = Bytes32("0x" + "ab" * 32), Bytes32("0x" + "ac" * 32)
WORKER = Address("0x" + "22" * 20)
SMS, ENCLAVE, ATTACKER = (PrivateKey(bytes([number]) * 32) for number in (1, 2, 3))

texts = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=MESSAGE_CAP).filter(
    str.isprintable
)
messages = st.builds(ProgressMessage, st.none() | st.floats(0, 1), texts)


def update(number: int = 1, *, enclave: PrivateKey = ENCLAVE, vouching: PrivateKey = SMS) -> ProgressUpdate:
    content = build_message(ProgressMessage(0.5, "half"))
    return ProgressUpdate(
        worker=WORKER,
        authorization=vouching.sign_message(scheduler_authorization(WORKER, TASK, enclave.address)),
        signature=enclave.sign_message(progress_digest(TASK, number, sealed=False, content=content)),
        sealed=False,
        content=content,
    )


@given(messages)
def test_messages_come_back_and_all_have_one_size(message: ProgressMessage) -> None:
    raw = build_message(message)
    assert len(raw) == MESSAGE_SIZE
    assert parse_message(raw) == message


def test_the_longest_texts_fit() -> None:
    for character in ("\\", '"', "\U0001f600", "é"):
        message = ProgressMessage(1 / 3, character * MESSAGE_CAP)
        assert parse_message(build_message(message)) == message
    assert ProgressMessage(0.5, "é").weight == 6
    assert ProgressMessage().weight == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"fraction":0.4,"message":"epoch 4 of 10"}', ProgressMessage(0.4, "epoch 4 of 10")),
        ('{"fraction":1}', ProgressMessage(1.0)),
        ('{"fraction":null,"message":"still here"}', ProgressMessage(None, "still here")),
        ("{}", ProgressMessage()),
    ],
)
def test_lines_of_an_iapp_are_read(line: str, message: ProgressMessage) -> None:
    assert parse_line(line.encode()) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"40 %",
        b"[0.4]",
        b"null",
        b"\xff\xfe",
        b'{"fraction":-0.1}',
        b'{"fraction":1.0001}',
        b'{"fraction":NaN}',
        b'{"fraction":1e999}',
        b'{"fraction":true}',
        b'{"fraction":"0.4"}',
        b'{"message":5}',
        b'{"message":"a\\nb"}',
        b'{"message":"\\u001b[2J"}',
        b'{"message":"\\ud800"}',
        b'{"fraction":0.4,"fraction":0.5}',
        b'{"fraction":0.4,"more":1}',
        json.dumps({"message": "x" * (MESSAGE_CAP + 1)}).encode(),
        b'{"message":"x"' + b" " * LINE_CAP + b"}",
    ],
)
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(CloisterError):
        parse_line(line)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        build_message(ProgressMessage())[:-1],
        build_message(ProgressMessage()) + b" ",
        b'{"fraction":1000001,"message":""}'.ljust(MESSAGE_SIZE),
        b'{"fraction":-1,"message":""}'.ljust(MESSAGE_SIZE),
        b'{"fraction":0.5,"message":""}'.ljust(MESSAGE_SIZE),
        b'{"fraction":true,"message":""}'.ljust(MESSAGE_SIZE),
        b'{"fraction":null}'.ljust(MESSAGE_SIZE),
        b'{"fraction":null,"message":"\\u0007"}'.ljust(MESSAGE_SIZE),
        b"\0" * MESSAGE_SIZE,
    ],
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises((DecodeError, InputError)):
        parse_message(raw)


def test_an_update_is_an_attested_enclave_s() -> None:
    told = parse_update(build_update(update(7)))
    assert told == update(7)
    assert verify_update(told, TASK, 7, SMS.address) == ENCLAVE.address
    sealed_size = len(build_update(update())) + OVERHEAD
    assert sealed_size <= UPDATE_CAP


def test_nobody_else_s_update_passes() -> None:
    """Abuse 65: shown for another task, in another place, changed, or made up by a host with a key of its own."""
    honest = update(2)
    flipped = bytes([honest.content[0] ^ 1]) + honest.content[1:]
    other_worker = Address("0x" + "23" * 20)
    wrong = [
        (honest, OTHER_TASK, 2, SMS),
        (honest, TASK, 1, SMS),
        (honest, TASK, 3, SMS),
        (honest, TASK, 0, SMS),
        (honest, TASK, -2, SMS),
        (honest, TASK, 2**40, SMS),
        (honest, TASK, 2, ATTACKER),
        (dataclasses.replace(honest, content=flipped), TASK, 2, SMS),
        (dataclasses.replace(honest, sealed=True), TASK, 2, SMS),
        (dataclasses.replace(honest, worker=other_worker), TASK, 2, SMS),
        (dataclasses.replace(honest, signature=bytes(65)), TASK, 2, SMS),
        (dataclasses.replace(honest, authorization=update(2, enclave=ATTACKER).authorization), TASK, 2, SMS),
        (dataclasses.replace(update(2, enclave=ATTACKER), authorization=honest.authorization), TASK, 2, SMS),
        (update(2, enclave=ATTACKER, vouching=ATTACKER), TASK, 2, SMS),
    ]
    for told, task, number, sms in wrong:
        with pytest.raises(VerificationError):
            verify_update(told, task, number, sms.address)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        bytes(152),
        build_update(update())[:152],
        b"\2" + build_update(update())[1:],
        b"\1\2" + build_update(update())[2:],
        build_update(update()) + bytes(UPDATE_CAP),
    ],
)
def test_what_is_no_update_is_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_update(raw)


@given(st.binary(max_size=UPDATE_CAP + 10))
def test_any_bytes_are_refused_or_come_back(raw: bytes) -> None:
    try:
        told = parse_update(raw)
    except DecodeError:
        return
    assert build_update(told) == raw


def test_a_sealed_message_is_bound_to_task_enclave_and_place() -> None:
    kinds = {
        progress_info(TASK, ENCLAVE.address, 1),
        progress_info(TASK, ENCLAVE.address, 2),
        progress_info(OTHER_TASK, ENCLAVE.address, 1),
        progress_info(TASK, ATTACKER.address, 1),
    }
    assert len(kinds) == 4
