"""The network's TPM root: a certificate authority of its own, and the software TPM that it certified for its worker.

The root vouches for one thing: this attestation key lies in the TPM with this endorsement key. It says nothing of who runs
that TPM; for swtpm that is the worker's host.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from cryptography.x509.oid import NameOID, ObjectIdentifier

from cloister.errors import ConfigurationError
from cloister.files import create_durably, locked, sync_folder
from cloister.network.tpmenrolment import SocketTransceiver, TpmModel, enrol
from cloister.worker.vm.swtpm import STATE_FILES, Swtpm

ROOT_DAYS = 3650
_BACKDATED = datetime.timedelta(hours=1)
_EK_CERTIFICATE = ObjectIdentifier("2.23.133.8.1")
_AK_CERTIFICATE = ObjectIdentifier("2.23.133.8.3")
_TPM_MANUFACTURER, _TPM_MODEL, _TPM_VERSION = (ObjectIdentifier(f"2.23.133.2.{number}") for number in (1, 2, 3))
_ROOT, _KEY, _LOCK = "root.der", "root.key", "lock"


@dataclass(frozen=True, slots=True)
class TpmRoot:
    """``root``: the certificate (DER) that the SMS's settings name. ``state``: the folder of the enrolled software TPM,
    which ``worker.vm.swtpm.Swtpm.start`` takes.
    """

    root: bytes
    state: Path


class TpmAuthority:
    """Implements ``Authority`` with the root's key. ``repr`` shows nothing of it."""

    __slots__ = ("_certificate", "_key", "_network")

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, network: str) -> None:
        self._key = key
        self._certificate = certificate
        self._network = network

    def __repr__(self) -> str:
        return f"TpmAuthority({self._network})"

    @property
    def root(self) -> bytes:
        """The root's certificate (DER)."""
        return self._certificate.public_bytes(Encoding.DER)

    def certify_ek(self, key: ec.EllipticCurvePublicKey, model: TpmModel) -> bytes:
        """By the EK Credential Profile: the TPM's make in the alternative name, an ECC key agrees on keys."""
        subject = _name(f"{self._network} TPM endorsement key", _fingerprint(key))
        make = x509.Name(
            [
                x509.NameAttribute(_TPM_MANUFACTURER, model.manufacturer),
                x509.NameAttribute(_TPM_MODEL, model.name),
                x509.NameAttribute(_TPM_VERSION, model.firmware),
            ]
        )
        names = x509.SubjectAlternativeName([x509.DirectoryName(make)])
        builder = self._builder(subject, key).add_extension(names, critical=False)
        builder = builder.add_extension(_key_usage("key_agreement"), critical=True)
        return self._sign(builder.add_extension(x509.ExtendedKeyUsage([_EK_CERTIFICATE]), critical=False))

    def certify_ak(self, key: ec.EllipticCurvePublicKey, ek: ec.EllipticCurvePublicKey) -> bytes:
        """The subject's serial number is the SHA-256 of the endorsement key (SPKI, DER) in hex: it names the TPM."""
        builder = self._builder(_name(f"{self._network} TPM attestation key", _fingerprint(ek)), key)
        builder = builder.add_extension(_key_usage("digital_signature"), critical=True)
        return self._sign(builder.add_extension(x509.ExtendedKeyUsage([_AK_CERTIFICATE]), critical=False))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        issuer = self._certificate
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(issuer.not_valid_before_utc)
            .not_valid_after(issuer.not_valid_after_utc)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.DER)


def load_tpm_root(folder: Path, network: str) -> TpmRoot:
    """Read the network's root and its enrolled TPM, or make them durably the first time.

    May be killed anywhere and called again, and by several processes at once.

    Raises:
        ConfigurationError: swtpm is not installed, or the root's key is gone while a TPM is still to be enrolled.
        UnavailableError: swtpm did not start. RemoteError: it does not obey.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(folder / _LOCK):
        root = _load_root(folder, network)
        # Named after the root: a TPM that another root certified is nothing here.
        state = folder / f"machine-{hashlib.sha256(root).hexdigest()[:16]}"
        if not state.is_dir():
            _manufacture(load_tpm_authority(folder, network), folder, state)
    return TpmRoot(root, state)


def load_tpm_authority(folder: Path, network: str) -> TpmAuthority:
    """The authority itself, to enrol further TPMs with (``tpmenrolment.enrol``).

    Raises:
        ConfigurationError: the root's key is gone, or belongs to another root.
    """
    certificate = x509.load_der_x509_certificate(_load_root(folder, network))
    try:
        key = load_der_private_key((folder / _KEY).read_bytes(), None)
    except (OSError, ValueError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError(
            f"{folder / _KEY} is not the key of the TPM root beside it",
            hint="restore the key, or remove the folder to make a new root",
        )
    return TpmAuthority(key, certificate, network)


def _load_root(folder: Path, network: str) -> bytes:
    """The root's certificate, made from a key that is durable before it."""
    path = folder / _ROOT
    if not path.is_file():
        key = ec.generate_private_key(ec.SECP256R1())
        raw = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        if not create_durably(folder / _KEY, raw):
            # A process that was killed between the two files left its key; it is as good as ours.
            loaded = load_der_private_key((folder / _KEY).read_bytes(), None)
            if not isinstance(loaded, ec.EllipticCurvePrivateKey):
                raise ConfigurationError(f"{folder / _KEY} is not the key of a TPM root", hint="remove the folder")
            key = loaded
        create_durably(path, _build_root(key, network))
    return path.read_bytes()


def _build_root(key: ec.EllipticCurvePrivateKey, network: str) -> bytes:
    name = _name(f"{network} TPM root", None)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=ROOT_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _manufacture(authority: TpmAuthority, folder: Path, state: Path) -> None:
    """Make a software TPM and enrol it; ``state`` appears whole or not at all."""
    for left in folder.glob(".machine-*"):
        shutil.rmtree(left)  # a process was killed here: nobody has seen that TPM
    making = folder / f".machine-{secrets.token_hex(8)}"
    making.mkdir(mode=0o700)
    try:
        with Swtpm.start_in_place(making) as swtpm:
            tpm = SocketTransceiver(swtpm.socket)
            try:
                enrol(tpm, authority)
            finally:
                tpm.close()
        for path in making.iterdir():
            if path.name in STATE_FILES:
                _sync(path)
            else:
                path.unlink()
        sync_folder(making)
        making.rename(state)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    sync_folder(folder)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of the SPKI (DER) in hex, 64 digits."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _name(common: str, serial: str | None) -> x509.Name:
    # X.520 allows 64 characters in either.
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common[:64])]
    if serial is not None:
        attributes.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial))
    return x509.Name(attributes)


def _key_usage(*uses: str) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    every = dict.fromkeys((*names, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(**every | dict.fromkeys(uses, True))
