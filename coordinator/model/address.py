"""Addresses of databases and of daemons: told apart from malformed ones before any connection is made.

The driver reads an address with TLS options as libpq does (``sslmode``, ``sslrootcert``, ``sslcert``, ``sslkey``, ``sslcrl``
and the ``PGSSL…`` variables). What libpq knows and the driver does not is refused rather than left out: to ignore
``channel_binding=require`` would be to weaken what somebody asked for. No message repeats any part of an address that
could hold its password.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

__all__ = ["GATEWAY_SCHEMES", "SCHEMES", "AddressError", "check", "check_gateway", "is_gateway", "without_password"]

SCHEMES = ("postgresql", "postgres")
GATEWAY_SCHEMES = ("http", "https", "unix")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
PARAMETERS = frozenset(
    (
        "application_name",
        "database",
        "dbname",
        "gsslib",
        "host",
        "krbsrvname",
        "options",
        "passfile",
        "password",
        "port",
        "service",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "target_session_attrs",
        "user",
    )
)
_TLS_FILES = {
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
}


class AddressError(ValueError):
    """An address is malformed; the message says what, the hint what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def check(address: str, environment: Mapping[str, str]) -> None:
    """Check an address, and the TLS options that the environment adds to it.

    Raises: ``AddressError``.
    """
    scheme = address.partition("://")[0]
    if "://" not in address or scheme not in SCHEMES:
        raise AddressError(
            "is no address of a PostgreSQL database",
            "It begins with postgresql://, as in postgresql://user@host:5432/database.",
        )
    if not address.isprintable():
        raise AddressError("has a control character or a broken one in it", "Write such characters as %XX, in UTF-8.")
    try:
        parts = urlsplit(address)
    except ValueError:
        raise AddressError("has brackets that do not fit", "Write an IPv6 host as [::1].") from None
    _check_host(parts.netloc, parts.path, parts.fragment)
    parameters = _parameters(parts.query)
    for port in parameters.get("port", "").split(","):
        _check_port(port)
    _check_tls(parameters, environment)


def is_gateway(address: str) -> bool:
    """Tell whether an address is that of a daemon or sidecar, rather than of a database."""
    return address.partition("://")[0] in GATEWAY_SCHEMES


def check_gateway(address: str) -> None:
    """Check the address of a daemon or sidecar: ``http://…``, ``https://…``, ``unix:///path``.

    Raises: ``AddressError``.
    """
    hint = "Write it like https://host:7420, or unix:///path/to/socket."
    if not is_gateway(address) or not address.isprintable() or not address.isascii() or " " in address:
        raise AddressError("is no address of a daemon", hint)
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise AddressError("has a port or brackets that do not fit", hint) from None
    if parts.username is not None or parts.password is not None:
        raise AddressError("has a user in it", "Give a token instead: COORDINATOR_TOKEN.")
    if parts.query or parts.fragment:
        raise AddressError("has more after its path", hint)
    if parts.scheme == "unix":
        if parts.netloc or len(parts.path) < 2:
            raise AddressError("names no socket", "Write three slashes, as in unix:///run/coordinator.sock.")
    elif not parts.hostname or port == 0:
        raise AddressError("names no host and port", hint)


def _check_host(netloc: str, path: str, fragment: str) -> None:
    user, _, hosts = netloc.rpartition("@")
    if "@" in user or "@" in path or fragment:
        raise AddressError(
            "has a character in its password that must be written otherwise",
            "Write @ as %40, / as %2F, # as %23, ? as %3F, : as %3A.",
        )
    for host in hosts.split(","):
        _check_port(host.rpartition("]")[2].partition(":")[2])


def _check_port(port: str) -> None:
    port = unquote(port)
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 65536):
        raise AddressError(
            "has a port that is no number from 1 to 65535",
            "A password goes before the @, with : / ? # @ in it written as %XX.",
        )


def _parameters(query: str) -> dict[str, str]:
    try:
        parameters = dict(parse_qsl(query, strict_parsing=True, keep_blank_values=True) if query else [])
    except ValueError:
        raise AddressError("has a part after ? that is not name=value", "Write ?name=value&name=value.") from None
    for name, value in parameters.items():
        if name not in PARAMETERS:
            close = get_close_matches(name, PARAMETERS, 1)
            raise AddressError(
                f'has the parameter "{name}", which is not supported',
                f"Did you mean {close[0]}?"
                if close
                else "Take it away; a setting of the server goes into options=-c%20name=value.",
            )
        if not value:
            raise AddressError(f'has no value for "{name}"', "Give one, or take the parameter away.")
    return parameters


def _check_tls(parameters: Mapping[str, str], environment: Mapping[str, str]) -> None:
    mode = parameters.get("sslmode") or environment.get("PGSSLMODE")
    origin = "sslmode" if parameters.get("sslmode") else "PGSSLMODE"
    if mode is not None and mode not in SSL_MODES:
        close = get_close_matches(mode, SSL_MODES, 1)
        raise AddressError(
            f'has the {origin} "{mode[:50]}"',
            f"Did you mean {close[0]}?" if close else f"It can be {', '.join(SSL_MODES)}.",
        )
    if mode == "disable":
        return
    found = {name: parameters.get(name) or environment.get(variable) for name, variable in _TLS_FILES.items()}
    files = {name: value for name, value in found.items() if value}
    if not files:
        return
    for name, value in files.items():
        try:
            Path(value).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise AddressError(
                f"names a file for {name} that cannot be read: {value} ({reason})",
                "Give the path of a PEM file that this user can read.",
            ) from None
    _check_pem(files, parameters.get("sslpassword", ""))


def _check_pem(files: Mapping[str, str], password: str) -> None:
    import ssl  # noqa: PLC0415 - slow to import, and needed by few

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
            f"names a file for {name} that holds no usable certificate: {files[name]} ({error.reason or 'not PEM'})",
            "Give a PEM file; sslkey must be the key that belongs to sslcert.",
        ) from None


def without_password(address: str) -> str:
    """Write an address for people: without its password."""
    parts = urlsplit(address)
    user, at, hosts = parts.netloc.rpartition("@")
    pairs = [pair for pair in parts.query.split("&") if pair.partition("=")[0] not in ("password", "sslpassword")]
    return urlunsplit(
        parts._replace(netloc=f"{user.partition(':')[0]}{at}{hosts}", query="&".join(filter(None, pairs)))
    )
