"""Event logs: what is read, what is replayed, and what is told to a person."""

from __future__ import annotations

import hashlib
import struct
from base64 import b64decode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.tpm_authority import Boot, log_head, record, secure_boot_variable, startup_record, tagged
from tests.vectors.loading import load_cases

from cloister.attestation.tpm.boot import describe_boot
from cloister.attestation.tpm.events import (
    EV_EFI_VARIABLE_DRIVER_CONFIG,
    EV_IPL,
    EV_NO_ACTION,
    MAX_EVENTS,
    parse_event_log,
    replay,
    verify_replay,
)
from cloister.errors import DecodeError, TooLarge, VerificationError


def extended(start: bytes, *measured: bytes) -> bytes:
    for data in measured:
        start = hashlib.sha256(start + hashlib.sha256(data).digest()).digest()
    return start


def test_every_record_is_read():
    boot = Boot()
    events = parse_event_log(boot.log())
    assert [(event.pcr, event.type) for event in events] == [(pcr, kind) for pcr, kind, _, _ in boot.records()]
    assert [event.digest for event in events] == [hashlib.sha256(data).digest() for _, _, data, _ in boot.records()]
    assert [event.data for event in events] == [data for _, _, _, data in boot.records()]


@pytest.mark.parametrize("case", load_cases("attestation/ovmf-boot.json"), ids=["ovmf"])
def test_a_real_boot_is_read_and_replayed(case):
    events = parse_event_log(b64decode(case["event_log"]))
    pcrs = replay(events)
    for index, digits in case["registers"].items():
        assert pcrs[int(index)].hex().startswith(digits)
    measured = hashlib.sha256((case["command_line"] + "\0").encode("utf-16-le")).hexdigest()
    named = {name: case[name] for name in ("initrd_sha256", "kernel_authenticode", "secure_boot")}
    assert describe_boot(events) == named | {"command_line_sha256": measured}


def test_registers_start_as_the_profile_says():
    pcrs = replay(())
    assert {index for index, value in pcrs.items() if value == b"\xff" * 32} == set(range(17, 23))
    assert {index for index, value in pcrs.items() if value == bytes(32)} == {*range(17), 23}


def test_events_fold_in_their_order():
    log = log_head() + record(4, 5, b"a", b"") + record(9, 99, b"b", b"") + record(4, 5, b"c", b"")
    pcrs = replay(parse_event_log(log))
    assert pcrs[4] == extended(bytes(32), b"a", b"c")
    assert pcrs[9] == extended(bytes(32), b"b")


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_register_0_starts_with_the_locality(locality):
    log = log_head() + startup_record(locality) + record(0, 5, b"a", b"")
    assert replay(parse_event_log(log))[0] == extended(bytes(31) + bytes([locality]), b"a")


def test_informative_records_extend_nothing_wherever_they_point():
    log = (
        log_head()
        + record(0xFFFFFFFF, EV_NO_ACTION, b"", b"note", digest=bytes(32))
        + record(5, EV_NO_ACTION, b"", b"x")
    )
    events = parse_event_log(log)
    assert [event.pcr for event in events] == [None, 5]
    assert replay(events) == replay(())


@pytest.mark.parametrize("algorithms", [[(11, 32)], [(4, 20), (11, 32), (12, 48), (13, 64)], [(0x12, 32), (11, 32)]])
def test_other_banks_are_skipped(algorithms):
    digests = b"".join(
        struct.pack("<H", name) + (hashlib.sha256(b"a").digest() if name == 11 else bytes(size))
        for name, size in algorithms
    )
    event = struct.pack("<III", 4, 5, len(algorithms)) + digests + struct.pack("<I", 0)
    assert replay(parse_event_log(log_head(algorithms) + event))[4] == extended(bytes(32), b"a")


def test_vendors_information_is_skipped():
    assert parse_event_log(log_head(vendor=b"vendor")) == ()


BODY = log_head()[32:]
BAD_LOGS = {
    "nothing": b"",
    "the form of TPM 1.2": struct.pack("<II20sI", 0, 8, bytes(20), 2) + b"v\0",
    "a digest in the head": log_head()[:8] + b"\1" * 20 + log_head()[28:],
    "another signature": log_head().replace(b"Event03", b"Event02"),
    "version 1": log_head().replace(struct.pack("<BBBB", 0, 2, 0, 2), struct.pack("<BBBB", 0, 1, 0, 2)),
    "a width of 3": log_head().replace(struct.pack("<BBBB", 0, 2, 0, 2), struct.pack("<BBBB", 0, 2, 0, 3)),
    "no algorithm": log_head([]),
    "an algorithm twice": log_head([(11, 32), (11, 32)]),
    "SHA-256 of 20 bytes": log_head([(11, 20)]),
    "an unknown algorithm": log_head([(11, 32), (0x99, 32)]),
    "nine algorithms": log_head([(11, 32)] * 9),
    "a byte behind the head": struct.pack("<II20sI", 0, 3, bytes(20), len(BODY) + 1) + BODY + b"\0",
    "a head that claims more": struct.pack("<II20sI", 0, 3, bytes(20), len(BODY) + 9) + BODY,
    "half an event": log_head() + record(0, 5, b"a", b"")[:30],
    "an event without SHA-256": log_head() + struct.pack("<IIIH20sI", 0, 5, 1, 4, bytes(20), 0),
    "an event with SHA-256 twice": log_head() + struct.pack("<IIIH32sH32sI", 0, 5, 2, 11, bytes(32), 11, bytes(32), 0),
    "an event with a third bank": log_head() + struct.pack("<IIIH32sH48sI", 0, 5, 2, 11, bytes(32), 12, bytes(48), 0),
    "zeros behind": log_head() + record(0, 5, b"a", b"") + bytes(64),
    "events without end": log_head() + record(0, 5, b"a", b"") * (MAX_EVENTS + 1),
    "an event of no register": log_head() + record(0xFFFFFFFF, 5, b"a", b""),
    "data of 40 KiB": log_head() + record(0, 5, b"a", bytes(40 * 1024)),
}


@pytest.mark.parametrize("name", BAD_LOGS)
def test_logs_in_another_form_are_refused(name):
    with pytest.raises(DecodeError) as refusal:
        parse_event_log(BAD_LOGS[name])
    assert refusal.value.code == "event-log-malformed"


def test_a_large_log_is_refused_by_its_size():
    with pytest.raises(TooLarge, match="98305"):
        parse_event_log(bytes(96 * 1024 + 1))


@pytest.mark.parametrize("late", [startup_record(3) + startup_record(3), record(0, 5, b"a", b"") + startup_record(3)])
def test_the_locality_is_told_once_and_first(late):
    with pytest.raises(DecodeError, match="too late"):
        replay(parse_event_log(log_head() + late))


def test_the_register_that_differs_is_named():
    events = parse_event_log(Boot().log())
    pcrs = replay(events)
    verify_replay(events, pcrs)
    with pytest.raises(VerificationError, match="pcr 7"):
        verify_replay(events, pcrs | {7: bytes(32), 9: bytes(32)})


def test_grubs_command_line_is_told_only_when_it_is_what_was_measured():
    honest = record(8, EV_IPL, b"root=/dev/vda ro", b"kernel_cmdline: root=/dev/vda ro\0")
    assert describe_boot(parse_event_log(log_head() + honest)) == {"command_line": "root=/dev/vda ro"}
    lie = record(8, EV_IPL, b"init=/bin/sh", b"kernel_cmdline: root=/dev/vda ro\0")
    assert describe_boot(parse_event_log(log_head() + lie)) == {}


def test_secure_boot_is_told_only_when_it_is_what_was_measured():
    on, off = secure_boot_variable(True), secure_boot_variable(False)
    for measured, logged, told in ((on, on, {"secure_boot": True}), (off, off, {"secure_boot": False}), (off, on, {})):
        log = log_head() + record(7, EV_EFI_VARIABLE_DRIVER_CONFIG, measured, logged)
        assert describe_boot(parse_event_log(log)) == told


def test_labels_of_other_registers_say_nothing():
    log = log_head() + record(8, 6, b"x", tagged(0x8F3B22EC, b"Linux initrd\0")) + record(5, 0x80000003, b"kernel", b"")
    assert describe_boot(parse_event_log(log)) == {}


EVENTS = st.lists(
    st.tuples(st.integers(0, 23), st.integers(4, 2**32 - 1), st.binary(max_size=20), st.binary(max_size=40))
)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_what_is_written_is_read(items):
    events = parse_event_log(log_head() + b"".join(record(*item) for item in items))
    assert [(event.pcr, event.type, event.data) for event in events] == [
        (pcr, kind, data) for pcr, kind, _, data in items
    ]
    pcrs = replay(events)
    for index in range(17):
        assert pcrs[index] == extended(bytes(32), *(data for pcr, _, data, _ in items if pcr == index))
    describe_boot(events)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_log_or_refused(data, headed):
    try:
        events = parse_event_log(log_head() + data if headed else data)
        replay(events)
        describe_boot(events)
    except DecodeError as refusal:
        assert refusal.code == "event-log-malformed"  # noqa: PT017
