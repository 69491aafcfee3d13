"""Checks the files in the TLS options of a database's address before a connection needs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coordinator.model.address import AddressError

__all__ = ["check_files"]


def check_files(options: Mapping[str, str]) -> None:
    """Check that every file is readable and contains what its option requires; ``sslpassword`` decrypts ``sslkey``.

    Raises: ``AddressError``.
    """
    files = {name: value for name, value in options.items() if name != "sslpassword"}
    for name, value in files.items():
        try:
            Path(value).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise AddressError(
                f"has an unreadable file as {name}: {value} ({reason})",
                "Give the path of a PEM file that this user can read.",
            ) from None
    if files:
        _check_pem(files, options.get("sslpassword", ""))


def _check_pem(files: Mapping[str, str], password: str) -> None:
    import ssl  # noqa: PLC0415 - slow to import, and rarely needed

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    name = ""
    try:
        for name in ("sslrootcert", "sslcrl"):
            if name in files:
                context.load_verify_locations(cafile=files[name])
        name = "sslcert"
        if name in files:
            context.load_cert_chain(files[name], files.get("sslkey"), password=lambda: password)
    except ssl.SSLError as error:
        raise AddressError(
            f"has an invalid certificate as {name}: {files[name]} ({error.reason or 'not PEM'})",
            "Give a PEM file; sslkey must be the key that belongs to sslcert.",
        ) from None
