"""Who may be talked to: the TLS settings, and what counts as this machine. Nothing here turns checking off."""

import ipaddress
import ssl

from gateway.config.broker import Tls


def is_loopback(host: str) -> bool:
    """Whether what goes to `host` stays on this machine, by its name or address alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails: paho would leave that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - ssl's signature
        """As in ssl."""
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Mutual TLS 1.2 or later, host name checked. Raises UplinkError where a file cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(tls.ca_file))
    context.sslsocket_class = _TlsSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(str(tls.certificate_file), str(tls.key_file), password=_no_password)
    return context


def _no_password() -> str:
    # Without it OpenSSL asks on the terminal, and a hub would wait for ever.
    return ""
