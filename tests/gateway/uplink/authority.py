"""A throw-away certificate authority, and a mosquitto that asks for its certificates."""

import contextlib
import datetime as dt
import ipaddress
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.gateway.uplink.bench import Mosquitto, mosquitto

DAY = dt.timedelta(days=1)


class Authority:
    """A throw-away certificate authority."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(
            self._sign(self.name, self.key, ca=True).public_bytes(serialization.Encoding.PEM)
        )

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        ca: bool = False,
        san: list[x509.GeneralName] | None = None,
        begins: dt.timedelta = -DAY,
        ends: dt.timedelta = DAY,
        by_itself: bool = False,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if by_itself else self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if san is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
        return builder.sign(key if by_itself else self.key, hashes.SHA256())

    def issue(
        self,
        name: str,
        *,
        host: str | None = None,
        begins: dt.timedelta = -DAY,
        ends: dt.timedelta = DAY,
        by_itself: bool = False,
    ) -> tuple[Path, Path]:
        """A certificate and its key, both as files; `by_itself`: self-signed."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        san: list[x509.GeneralName]
        try:
            san = [x509.IPAddress(ipaddress.ip_address(host or "127.0.0.1"))]
        except ValueError:
            san = [x509.DNSName(host or "")]
        certificate = self._sign(
            subject, key, san=san, begins=begins, ends=ends, by_itself=by_itself
        )
        certificate_file, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate_file, key_file


@contextlib.contextmanager
def tls_mosquitto(folder: Path, ca: Authority, server: tuple[Path, Path]) -> Iterator[Mosquitto]:
    listener = (
        f"cafile {ca.file}\ncertfile {server[0]}\nkeyfile {server[1]}\n"
        "require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.2\n"
    )
    with mosquitto(folder, listener) as running_server:
        yield running_server
