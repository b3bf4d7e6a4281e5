"""A small authority: it makes certificates for daemons and their clients, as files of one folder.

    ca.pem  ca.key          the authority; its key is the one secret that makes others
    NAME.pem  NAME.key      one for each daemon and client

All keys are EC P-256, which every TLS 1.3 has. Nothing is ever overwritten.
"""

from __future__ import annotations

import ipaddress
import os
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lpt_service.protocol.url import split_zone

CA: Final = "ca"
CA_DAYS: Final = 3650
LEAF_DAYS: Final = 825  # some systems take no server's certificate that is valid for longer
_CLOCKS_APART: Final = timedelta(hours=1)  # a certificate made here is valid at once elsewhere
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

CERTIFICATE_MODE: Final = 0o644
KEY_MODE: Final = 0o600


class AuthorityError(Exception):
    """It cannot be done; the text says why, and what to do."""


def init(folder: Path, *, days: int = CA_DAYS) -> Path:
    """Make an authority in `folder`, which may exist: the path of its certificate. Raises AuthorityError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise AuthorityError(f"{folder} cannot be made: {exc.strerror}") from exc
    key = ec.generate_private_key(ec.SECP256R1())
    # The host's time is in the name, so that two authorities are never taken for each other.
    name = _name(f"lpt-service authority {datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S}")
    builder = _builder(name, name, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(is_ca=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return _write(folder, CA, builder.sign(key, hashes.SHA256()), key)


def issue_server(folder: Path, names: tuple[str, ...], *, days: int = LEAF_DAYS) -> Path:
    """A certificate for a daemon that is reached under `names` (host names and IP addresses); the first names its file.

    Raises AuthorityError.
    """
    return _issue(folder, names[0], [_alternative(name) for name in names], ExtendedKeyUsageOID.SERVER_AUTH, days)


def issue_client(folder: Path, name: str, *, days: int = LEAF_DAYS) -> Path:
    """A certificate by which a daemon knows a client as `name`. Raises AuthorityError."""
    if not _NAME.fullmatch(name):
        raise AuthorityError(f"{name!r} is no name: 1 to 63 of A-Z a-z 0-9 . _ - beginning with a letter or digit")
    return _issue(folder, name, [x509.DNSName(name)], ExtendedKeyUsageOID.CLIENT_AUTH, days)


def _issue(
    folder: Path, name: str, alternatives: list[x509.GeneralName], purpose: x509.ObjectIdentifier, days: int
) -> Path:
    if name == CA:
        raise AuthorityError(f"{CA!r} is the name of the authority's own files; choose another")
    authority, authority_key = _load(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(name), authority.subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(is_ca=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = builder.add_extension(issuer, critical=False)
    return _write(folder, name, builder.sign(authority_key, hashes.SHA256()), key)


def _alternative(name: str) -> x509.GeneralName:
    try:
        # A zone is the computer's own that names it.
        return x509.IPAddress(ipaddress.ip_address(split_zone(name)[0]))
    except ValueError:
        pass
    if not _NAME.fullmatch(name):
        raise AuthorityError(f"{name!r} is neither a host name nor an IP address; give those that clients use in URLs")
    return x509.DNSName(name)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
    builder = builder.serial_number(x509.random_serial_number())
    # A test may ask for one that has expired: days < 0.
    return builder.not_valid_before(now - max(_CLOCKS_APART, timedelta(days=-2 * days))).not_valid_after(
        now + timedelta(days=days)
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{CA}.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / f"{CA}.key").read_bytes(), password=None)
    except OSError as exc:
        raise AuthorityError(
            f"{exc.filename} cannot be read: {exc.strerror}; `lptctl cert init` makes one, --directory says where it is"
        ) from exc
    except (ValueError, TypeError) as exc:
        raise AuthorityError(f"{folder / CA}.pem or .key is damaged: {exc}") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise AuthorityError(f"{folder / CA}.key is not the key of {folder / CA}.pem")
    return certificate, key


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Path:
    path = folder / f"{name}.pem"
    key_bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _create(path, certificate.public_bytes(serialization.Encoding.PEM), CERTIFICATE_MODE)
    try:
        _create(path.with_name(f"{name}.key"), key_bytes, KEY_MODE)
    except AuthorityError:
        path.unlink()
        raise
    return path


def _create(path: Path, data: bytes, mode: int) -> None:
    """A new file that has its mode from the first moment on, whole or not at all."""
    try:
        file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")  # noqa: SIM115 - see below
    except FileExistsError as exc:
        raise AuthorityError(f"{path} is there already, and nothing is overwritten: remove it first") from exc
    except OSError as exc:
        raise AuthorityError(f"{path} cannot be written: {exc.strerror}") from exc
    try:
        with file:
            file.write(data)
    except OSError as exc:
        path.unlink()
        raise AuthorityError(f"{path} cannot be written: {exc.strerror}") from exc
