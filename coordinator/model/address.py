"""Addresses of databases and daemons, checked before a connection is made.

The driver reads the TLS options of an address as libpq does (``sslmode``, ``sslrootcert``, ``sslcert``, ``sslkey``,
``sslcrl`` and the ``PGSSL…`` variables). A parameter that libpq knows and the driver does not is an error: ignoring
``channel_binding=require`` would be less secure than what the user asked for. No message contains a part of an address
that could contain its password.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from coordinator.suggestion import suggestion

__all__ = [
    "GATEWAY_SCHEMES",
    "SCHEMES",
    "AddressError",
    "check",
    "check_gateway",
    "credentials_apart",
    "hosts_apart",
    "is_database",
    "is_gateway",
    "with_database",
    "without_credentials",
    "without_password",
]

SCHEMES = ("postgresql", "postgres")
GATEWAY_SCHEMES = ("http", "https", "unix")
SECRETS = ("password", "sslpassword")
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
    """An address is malformed. The message says what is wrong; the hint says what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def check(address: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Check an address of a database, and the TLS options that the environment adds to it.

    Returns the options that name files (``sslrootcert``, …) and ``sslpassword``; the caller checks the files.

    Raises: ``AddressError``.
    """
    scheme = address.partition("://")[0]
    if "://" not in address or scheme not in SCHEMES:
        raise AddressError(
            "is not the address of a PostgreSQL database",
            "Write it like postgresql://user@host:5432/database.",
        )
    if not address.isprintable():
        raise AddressError("contains a control character or invalid UTF-8", "Write such characters as %XX.")
    try:
        parts = urlsplit(address)
    except ValueError:
        raise AddressError("has unbalanced brackets", "Write an IPv6 host like [::1].") from None
    _check_host(parts.netloc, parts.path, parts.fragment)
    parameters = _parameters(parts.query)
    for port in parameters.get("port", "").split(","):
        _check_port(port)
    return _tls_files(parameters, environment)


def is_database(address: str) -> bool:
    """Return whether an address is the address of a database."""
    return address.partition("://")[0] in SCHEMES


def is_gateway(address: str) -> bool:
    """Return whether an address is the address of a daemon or sidecar, not of a database."""
    return address.partition("://")[0] in GATEWAY_SCHEMES


def check_gateway(address: str) -> None:
    """Check the address of a daemon or sidecar: ``http://…``, ``https://…``, ``unix:///path``.

    Raises: ``AddressError``.
    """
    hint = "Write it like https://host:7420, or unix:///path/to/socket."
    if not is_gateway(address):
        raise AddressError(
            "is not the address of a database or a daemon",
            "Write it like postgresql://user@host:5432/database, https://host:7420 or unix:///path/to/socket.",
        )
    if not address.isprintable() or not address.isascii() or " " in address:
        raise AddressError("is not the address of a daemon", hint)
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise AddressError("has an invalid port or unbalanced brackets", hint) from None
    if parts.username is not None or parts.password is not None:
        raise AddressError("contains a user", "Set COORDINATOR_TOKEN instead.")
    if parts.query or parts.fragment:
        raise AddressError("has a query or a fragment", hint)
    if parts.scheme == "unix":
        if parts.netloc or len(parts.path) < 2:
            raise AddressError("names no socket", "Write three slashes, like unix:///run/coordinator.sock.")
    elif not parts.hostname or port == 0:
        raise AddressError("has no host, or port 0", hint)


def _check_host(netloc: str, path: str, fragment: str) -> None:
    user, _, hosts = netloc.rpartition("@")
    if "@" in user or "@" in path or fragment:
        raise AddressError(
            "has a reserved character in its password",
            "Write @ as %40, / as %2F, # as %23, ? as %3F, : as %3A.",
        )
    for host in hosts.split(","):
        _check_port(host.rpartition("]")[2].partition(":")[2])


def _check_port(port: str) -> None:
    port = unquote(port)
    if port and not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 65536):
        raise AddressError(
            "has an invalid port; ports are 1 to 65535",
            "Write the password before the @, with : / ? # @ in it as %XX.",
        )


def _parameters(query: str) -> dict[str, str]:
    try:
        parameters = dict(parse_qsl(query, strict_parsing=True, keep_blank_values=True) if query else [])
    except ValueError:
        raise AddressError("has a parameter that is not name=value", "Write ?name=value&name=value.") from None
    for name, value in parameters.items():
        if name not in PARAMETERS:
            raise AddressError(
                f'has the unsupported parameter "{name}"',
                suggestion(name, PARAMETERS, "Omit it; write a server setting as options=-c%20name=value."),
            )
        if not value:
            raise AddressError(f'has no value for "{name}"', "Add a value, or omit the parameter.")
    return parameters


def _tls_files(parameters: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    mode = parameters.get("sslmode") or environment.get("PGSSLMODE")
    origin = "sslmode" if parameters.get("sslmode") else "PGSSLMODE"
    if mode is not None and mode not in SSL_MODES:
        raise AddressError(
            f'has an invalid {origin}, "{mode[:50]}"',
            suggestion(mode, SSL_MODES, f"Use one of {', '.join(SSL_MODES)}."),
        )
    if mode == "disable":
        return {}
    found = {name: parameters.get(name) or environment.get(variable) for name, variable in _TLS_FILES.items()}
    return {name: value for name, value in {**found, "sslpassword": parameters.get("sslpassword")}.items() if value}


def hosts_apart(address: str) -> list[str]:
    """Split the address of a database into one for each host. If it prefers a standby, return it whole, since its hosts must be compared."""
    parts = urlsplit(address)
    user, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts or "target_session_attrs=prefer-standby" in parts.query:
        return [address]
    return [_written(parts._replace(netloc=f"{user}{at}{host}")) for host in hosts.split(",")]


def without_credentials(address: str) -> str:
    """Return the address of a database without user and passwords: server, database and options."""
    parts = urlsplit(without_password(address))
    pairs = [pair for pair in parts.query.split("&") if pair.partition("=")[0] != "user"]
    return _written(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="&".join(filter(None, pairs))))


def without_password(address: str) -> str:
    """Return a readable address, without its password."""
    return credentials_apart(address)[0]


def credentials_apart(address: str) -> tuple[str, dict[str, str]]:
    """Return an address without its secrets, and the secrets: ``password`` and ``sslpassword``, if it has them."""
    parts = urlsplit(address)
    user, at, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    pairs = [pair for pair in parts.query.split("&") if pair]
    apart = dict(parse_qsl("&".join(pair for pair in pairs if pair.partition("=")[0] in SECRETS)))
    if password:
        apart.setdefault("password", unquote(password))
    query = "&".join(pair for pair in pairs if pair.partition("=")[0] not in SECRETS)
    return _written(parts._replace(netloc=f"{name}{at}{hosts}", query=query)), apart


def with_database(address: str, name: str) -> str:
    """Return the address of another database on the same server."""
    parts = urlsplit(address)
    pairs = [pair for pair in parts.query.split("&") if pair and pair.partition("=")[0] not in ("dbname", "database")]
    return _written(parts._replace(path=f"/{quote(name)}", query="&".join(pairs)))


def _written(parts: SplitResult) -> str:
    """Rebuild an address; urlunsplit drops the slashes of an address without a host."""
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path}{query}"
