"""The addresses that requests to users' URLs may reach: public addresses, and those that a setting allows."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from coordinator.errors import ConfigurationError, InvalidArgument

__all__ = ["Networks", "networks_of"]

ALL = "all"
CLOUD = (ip_network("168.63.129.16/32"), ip_network("192.0.0.0/24"))  # metadata services at addresses that look public
NAT64 = IPv6Network("64:ff9b::/96")


def networks_of(text: str | None, setting: str, further: str = "") -> list[IPv4Network | IPv6Network]:
    """Parse the networks in a setting, separated by commas; ``further`` is another word that it accepts.

    Raises: ``ConfigurationError``.
    """
    try:
        return [ip_network(name.strip()) for name in (text or "").split(",") if name.strip()]
    except ValueError as error:
        raise ConfigurationError(
            f"invalid network in the setting {setting}: {str(error)[:200]}",
            hint=f"Write networks such as 10.0.0.0/8 or fd00::/8, separated by commas{further}.",
        ) from None


class Networks:
    """The networks that a setting allows in addition to public addresses: ``10.0.0.0/8``, several separated by commas, or ``all``.

    Raises: ``ConfigurationError``.
    """

    def __init__(self, text: str | None) -> None:
        self._all = (text or "").strip(" ,") == ALL
        self._allowed = networks_of(None if self._all else text, "webhook_networks", "; or all")

    def refusal(self, address: str) -> str | None:
        """Return why an IP address must not be reached; None if it may."""
        named = ip_address(address.partition("%")[0])
        meant = _meant(named)
        if self._all or any(one in network for network in self._allowed for one in (named, meant)):
            return None
        if (
            not meant.is_global
            or meant.is_multicast
            or meant.is_reserved
            or any(meant in network for network in CLOUD)
            or (isinstance(meant, IPv6Address) and meant.is_site_local)
        ):
            return f"{address} is not a public address"
        return None

    def check_url(self, url: str) -> None:
        """Refuse a URL whose host is such an address, or localhost. The addresses of a name are checked at the connection.

        Raises: ``InvalidArgument``.
        """
        try:
            host = (urlsplit(url).hostname or "").rstrip(".")
            reason = self.refusal("127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host)
        except ValueError:  # a name; or malformed, which the database rejects
            return
        if reason is not None:
            raise InvalidArgument(
                f'the URL "{url[:200]}" is refused: {reason}',
                hint="An administrator can allow its network: set COORDINATOR_WEBHOOK_NETWORKS for the daemons, and where webhooks are added.",
            )


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address in an IPv6 address that wraps it: mapped, 6to4, Teredo, NAT64, or compatible."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
