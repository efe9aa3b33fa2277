"""A certificate authority of one's own, for homeservers that federate on one machine or in one office.

Every homeserver that is started with the same authority's folder trusts the others. Public servers use
certificates of a public authority instead and need none of this.
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.written_files import make_folder, write_new_file

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
RENEWED_DAYS_BEFORE_END = 60


@dataclass(frozen=True, slots=True)
class LocalAuthority:
    """An authority's folder: `ca.pem` for those who trust it, `ca.key` for those who may sign."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def key(self) -> Path:
        return self.folder / "ca.key"


def ensure_authority(authority: LocalAuthority, *, now: datetime.datetime) -> None:
    """Makes the authority unless it is there; of several that ask at once, one makes it.

    Raises CommandFailed when the folder holds only half of one.
    """
    with _locked(authority.folder):
        if authority.certificate.exists() and authority.key.exists():
            return
        if authority.certificate.exists():
            raise CommandFailed(
                f"{authority.folder} has ca.pem without ca.key: bring the key back, or name an empty folder."
            )
        # The certificate is written last, so a key without one is of a start that was interrupted.
        authority.key.unlink(missing_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, f"Weft local authority {secrets.token_hex(4)}")]
        )
        certificate = (
            _builder(subject=name, issuer=name, key=key, now=now, days=AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_new_file(authority.key, _key_text(key), secret=True)
        write_new_file(authority.certificate, _certificate_text(certificate))


def ensure_certificate(
    authority: LocalAuthority, *, host: str, certificate: Path, key: Path, now: datetime.datetime
) -> None:
    """Makes a server certificate for the host, localhost and 127.0.0.1, or renews one that ends soon.

    One that another authority signed is left alone. Raises CommandFailed when a file can't be used.
    """
    ensure_authority(authority, now=now)
    try:
        signer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
        signing_key = serialization.load_pem_private_key(authority.key.read_bytes(), password=None)
        present = x509.load_pem_x509_certificate(certificate.read_bytes()) if certificate.exists() else None
    except (ValueError, TypeError) as error:
        raise CommandFailed(
            f"{authority.folder} or {certificate} holds no certificate that can be read."
        ) from (error)
    if not isinstance(signing_key, ec.EllipticCurvePrivateKey):
        raise CommandFailed(f"{authority.key} is not a key that Weft made: name another folder by --ca.")
    if present is not None and key.exists():
        ends_soon = present.not_valid_after_utc - now < datetime.timedelta(days=RENEWED_DAYS_BEFORE_END)
        if present.issuer != signer.subject or not ends_soon:
            return
    own_key = ec.generate_private_key(ec.SECP256R1())
    made = (
        _builder(
            subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])]),
            issuer=signer.subject,
            key=own_key,
            now=now,
            days=CERTIFICATE_DAYS,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_alternative_names(host)), critical=False)
        .sign(signing_key, hashes.SHA256())
    )
    # A crash between the two leaves no certificate, and the next start makes both again.
    certificate.unlink(missing_ok=True)
    key.unlink(missing_ok=True)
    write_new_file(key, _key_text(own_key), secret=True)
    write_new_file(certificate, _certificate_text(made))


def _builder(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Another machine's clock may be a little behind.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    try:
        own: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        own = x509.DNSName(host)
    return names if own in names else [*names, own]


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _certificate_text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    make_folder(folder)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
