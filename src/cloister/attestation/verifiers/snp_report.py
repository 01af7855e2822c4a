"""The attestation report of SEV-SNP, byte by byte (AMD 56860, ATTESTATION_REPORT and the tables beside it).

Reading judges nothing but form: lengths, versions, reserved bytes, the one way to write a signature.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cloister.attestation.snp_payload import REPORT_SIZE
from cloister.errors import DecodeError

SIGNED_SIZE = 0x2A0
"""The signature covers the report's first 672 bytes."""

ECDSA_P384_SHA384 = 1
VERSIONS = (2, 3, 4, 5)
"""Version 4 stands in no public table. Firmware 1.55.31 makes it, and it is laid out as version 3: the processor's family
came with that one, mitigations came with version 5.
"""

MASKED_CHIP = bytes(64)
_ORDER = int("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16)
"""Order of P-384's group (FIPS 186-4)."""

_NUMBER = 48
_FIELD = 72
_HIGHEST_VMPL = 3


class Product(StrEnum):
    """The families of processors that have a root of their own, by the name in it."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


_RESERVED_TCB = {Product.MILAN: range(2, 6), Product.GENOA: range(2, 6), Product.TURIN: range(4, 7)}
_TCB_FIELDS = {
    Product.MILAN: {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7},
    Product.GENOA: {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7},
    Product.TURIN: {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7},
}
"""Which byte of a TCB_VERSION is whose version. Turin's differs: its first byte is the microcontroller's."""

_MODELS = (
    (0x19, range(0x10), Product.MILAN),
    (0x19, range(0x10, 0x20), Product.GENOA),
    (0x19, range(0xA0, 0xB0), Product.GENOA),  # Bergamo and Siena, under Genoa's root
    (0x1A, range(0x20), Product.TURIN),
)


@dataclass(frozen=True, slots=True)
class GuestPolicy:
    """What the guest's owner lets the host do (GUEST_POLICY, 64 bits)."""

    raw: int

    def _bit(self, number: int) -> bool:
        return bool(self.raw >> number & 1)

    @property
    def abi(self) -> str:
        """The oldest firmware ABI that may run the guest, as ``major.minor``."""
        return f"{self.raw >> 8 & 0xFF}.{self.raw & 0xFF}"

    @property
    def smt(self) -> bool:
        """The host may run two threads on a core."""
        return self._bit(16)

    @property
    def migration_agent(self) -> bool:
        return self._bit(18)

    @property
    def debug(self) -> bool:
        """The host may read and write the guest's memory."""
        return self._bit(19)

    @property
    def single_socket(self) -> bool:
        return self._bit(20)

    @property
    def cxl_allowed(self) -> bool:
        return self._bit(21)

    @property
    def aes256_xts(self) -> bool:
        return self._bit(22)

    @property
    def rapl_disabled(self) -> bool:
        return self._bit(23)

    @property
    def ciphertext_hiding(self) -> bool:
        return self._bit(24)

    @property
    def page_swap_disabled(self) -> bool:
        return self._bit(25)


@dataclass(frozen=True, slots=True)
class Report:
    """A report's fields. TCB versions are 8 raw bytes, whose meaning the product gives (``read_tcb``).

    ``cpu``: family and model, None in version 2. ``platform_info``: 64 bits as they stand. ``launch_mitigations`` and
    ``current_mitigations``: bit vectors, None before version 5. ``r`` and ``s``: the signature's numbers.
    """

    signed: bytes
    version: int
    guest_svn: int
    policy: GuestPolicy
    family_id: bytes
    image_id: bytes
    vmpl: int
    current_tcb: bytes
    platform_info: int
    author_key: bool
    mask_chip_key: bool
    signing_key: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpu: tuple[int, int] | None
    chip_id: bytes
    committed_tcb: bytes
    current_firmware: str
    committed_firmware: str
    launch_tcb: bytes
    launch_mitigations: int | None
    current_mitigations: int | None
    r: int
    s: int

    @property
    def chip_masked(self) -> bool:
        """The host hides which chip this is (MASK_CHIP_ID)."""
        return self.chip_id == MASKED_CHIP


def parse_report(raw: bytes) -> Report:
    """Read a report of version 2 to 5.

    Raises:
        DecodeError: ``snp-length``, ``snp-version``, ``snp-signature-algorithm``, ``snp-reserved`` (a byte or bit that
        must be zero is not), ``snp-policy`` (reserved bits of the guest policy), ``snp-vmpl``, ``snp-signature-format``.
    """
    if len(raw) != REPORT_SIZE:
        raise DecodeError(f"the SEV-SNP report has {len(raw)} bytes instead of {REPORT_SIZE}", code="snp-length")
    version = _uint(raw, 0x00, 4)
    if version not in VERSIONS:
        raise DecodeError(f"a SEV-SNP report of version {version} is not known here", code="snp-version")
    algorithm = _uint(raw, 0x34, 4)
    if algorithm != ECDSA_P384_SHA384:
        raise DecodeError(
            f"signature algorithm {algorithm} is not ECDSA P-384 with SHA-384", code="snp-signature-algorithm"
        )
    policy, flags, vmpl = GuestPolicy(_uint(raw, 0x08, 8)), _uint(raw, 0x48, 4), _uint(raw, 0x30, 4)
    _check_reserved(raw, version, flags)
    if policy.raw >> 26 or not policy.raw >> 17 & 1:
        raise DecodeError(f"guest policy {policy.raw:#x} has reserved bits that are wrong", code="snp-policy")
    if vmpl > _HIGHEST_VMPL:
        # All ones: the host asked for this report, so its report data is not the guest's word.
        raise DecodeError("the SEV-SNP report was not asked for at a privilege level of the guest", code="snp-vmpl")
    return Report(
        signed=raw[:SIGNED_SIZE],
        version=version,
        guest_svn=_uint(raw, 0x04, 4),
        policy=policy,
        family_id=raw[0x10:0x20],
        image_id=raw[0x20:0x30],
        vmpl=vmpl,
        current_tcb=raw[0x38:0x40],
        platform_info=_uint(raw, 0x40, 8),
        author_key=bool(flags & 1),
        mask_chip_key=bool(flags & 2),
        signing_key=flags >> 2 & 7,
        report_data=raw[0x50:0x90],
        measurement=raw[0x90:0xC0],
        host_data=raw[0xC0:0xE0],
        id_key_digest=raw[0xE0:0x110],
        author_key_digest=raw[0x110:0x140],
        report_id=raw[0x140:0x160],
        report_id_ma=raw[0x160:0x180],
        reported_tcb=raw[0x180:0x188],
        cpu=(raw[0x188], raw[0x189]) if version >= 3 else None,
        chip_id=raw[0x1A0:0x1E0],
        committed_tcb=raw[0x1E0:0x1E8],
        current_firmware=_firmware(raw, 0x1E8),
        committed_firmware=_firmware(raw, 0x1EC),
        launch_tcb=raw[0x1F0:0x1F8],
        launch_mitigations=_uint(raw, 0x1F8, 8) if version >= 5 else None,
        current_mitigations=_uint(raw, 0x200, 8) if version >= 5 else None,
        r=_signature_number(raw, SIGNED_SIZE),
        s=_signature_number(raw, SIGNED_SIZE + _FIELD),
    )


def read_tcb(product: Product, raw: bytes) -> dict[str, int]:
    """A TCB_VERSION's numbers by name: ``bootloader``, ``tee``, ``snp``, ``microcode`` and, for Turin, ``fmc``.

    Raises:
        DecodeError: ``snp-reserved``: a byte that this product does not use is not zero.
    """
    if any(raw[i] for i in _RESERVED_TCB[product]):
        raise DecodeError(f"a TCB version of {product} has reserved bytes that are not zero", code="snp-reserved")
    return {name: raw[position] for name, position in _TCB_FIELDS[product].items()}


def product_of(cpu: tuple[int, int]) -> Product | None:
    """The product of a processor's family and model, None for one that is not known."""
    family, model = cpu
    return next((product for f, models, product in _MODELS if f == family and model in models), None)


def _check_reserved(raw: bytes, version: int, flags: int) -> None:
    spans = [
        (0x4C, 0x50),
        (0x1EB, 0x1EC),
        (0x1EF, 0x1F0),
        (0x208, SIGNED_SIZE),
        (SIGNED_SIZE + 2 * _FIELD, REPORT_SIZE),
    ]
    spans.append((0x18B, 0x1A0) if version >= 3 else (0x188, 0x1A0))
    if version < 5:
        spans.append((0x1F8, 0x208))
    for start, end in spans:
        if any(raw[start:end]):
            raise DecodeError(f"reserved bytes of the SEV-SNP report at {start:#x} are not zero", code="snp-reserved")
    if flags >> 5:
        raise DecodeError("reserved bits of the SEV-SNP report at 0x48 are not zero", code="snp-reserved")


def _uint(raw: bytes, offset: int, size: int) -> int:
    return int.from_bytes(raw[offset : offset + size], "little")


def _firmware(raw: bytes, offset: int) -> str:
    """Build, minor, major: in that order in the report, the other way in print."""
    return f"{raw[offset + 2]}.{raw[offset + 1]}.{raw[offset]}"


def _signature_number(raw: bytes, offset: int) -> int:
    if any(raw[offset + _NUMBER : offset + _FIELD]):
        raise DecodeError("a number of the report's signature is longer than 48 bytes", code="snp-signature-format")
    number = _uint(raw, offset, _NUMBER)
    if not 0 < number < _ORDER:
        raise DecodeError("a number of the report's signature is out of range", code="snp-signature-format")
    return number
