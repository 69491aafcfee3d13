"""TLS for HTTP: a certificate and key from files, loaded again when the files change.

New connections get the new certificate; open ones keep theirs. A pair that cannot be loaded (partially written, or not
matching) is ignored, with a warning, until the files change again. What it deliberately does not do: ask clients for
certificates.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import anyio
import structlog

from coordinator.config import Config
from coordinator.errors import ConfigurationError

__all__ = ["Certificate", "certificate_of"]

LOOK_S = 2.0

log = structlog.get_logger()


class Certificate:
    """A certificate with its chain, and its key.

    Raises: ``ConfigurationError`` if they cannot be loaded.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self.context = _context()
        self._seen = self._look()
        try:
            self.context.load_cert_chain(certificate, key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"cannot load the certificate {certificate} with the key {key}: {_reason(error)}",
                hint="Set tls_certificate and tls_key to PEM files: the chain, and its key without a password.",
            ) from error

    async def run_forever(self) -> None:
        """Reload the files when they change, until cancelled."""
        while True:
            await anyio.sleep(LOOK_S)
            self.reload()

    def reload(self) -> bool:
        """Load the files if they changed; return whether it did."""
        found = self._look()
        if found == self._seen:
            return False
        self._seen = found
        try:
            # Load into a separate context first: a mismatched pair would leave the one in use partially replaced.
            _context().load_cert_chain(self._certificate, self._key, password=_no_password)
            self.context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            log.warning("tls.reload_failed", certificate=str(self._certificate), error=_reason(error))
            return False
        log.info("tls.reloaded", certificate=str(self._certificate))
        return True

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._certificate, self._key))


def certificate_of(config: Config) -> Certificate | None:
    """Load the configured certificate; return None if none is configured.

    Raises: ``ConfigurationError``.
    """
    if config.tls_certificate is None and config.tls_key is None:
        return None
    if config.tls_certificate is None or config.tls_key is None:
        missing = "tls_certificate" if config.tls_certificate is None else "tls_key"
        raise ConfigurationError(f"TLS lacks {missing}", hint=f"Also set COORDINATOR_{missing.upper()}.")
    return Certificate(config.tls_certificate, config.tls_key)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    raise ssl.SSLError("the key has a password")  # otherwise OpenSSL would ask for it on the terminal


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
