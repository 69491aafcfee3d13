"""Which addresses are public, and which a setting allows."""

from __future__ import annotations

import pytest

from coordinator.errors import ConfigurationError, InvalidArgument
from coordinator.model.network import Networks

WORDS = """
127.0.0.1 127.8.9.10 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.1.1 169.254.169.254 100.64.0.1 100.100.100.200 0.0.0.0 0.1.2.3
224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 192.0.0.192 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 168.63.129.16
::1 :: fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 fec0::1 ff02::1 2001:db8::1
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 2002:7f00:1:: 2002:a00:1::
2001:0:4136:e378:8000:63bf:80ff:fffe
"""
REFUSED = WORDS.split()
OPEN = "8.8.8.8 1.1.1.1 172.32.0.1 100.63.255.255 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808"
PUBLIC = OPEN.split()


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_public_is_refused_unless_it_is_allowed(address: str) -> None:
    assert Networks(None).refusal(address)
    assert Networks("all").refusal(address) is None


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_reached(address: str) -> None:
    assert Networks(None).refusal(address) is None


def test_a_network_allows_its_own_addresses_alone() -> None:
    networks = Networks("10.1.0.0/16, fd00::/8")
    assert [networks.refusal(one) is None for one in ("10.1.2.3", "10.2.0.1", "::ffff:10.1.0.1", "fd12::1", "fc00::1")] == [
        True, False, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["10.0.0.1/8", "any", "10.0.0.0/8;fd00::/8", "all,10.0.0.0/8", "*"])
def test_a_malformed_network_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Networks(text)
    assert raised.value.hint


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:80", "[::1]:80", "localhost", "LOCALHOST.", "a.localhost", "169.254.169.254"]
)
def test_a_url_at_such_an_address_is_refused(host: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        Networks(None).check_url(f"http://{host}/hook")
    assert "COORDINATOR_WEBHOOK_NETWORKS" in (raised.value.hint or "")
    Networks("127.0.0.0/8,::1/128,169.254.0.0/16").check_url(f"http://{host}/hook")


@pytest.mark.parametrize(
    "url", ["https://example.com/", "https://8.8.8.8/", "https://[", "", "https://localhost.example/"]
)
def test_another_url_is_left_to_the_delivery(url: str) -> None:
    Networks(None).check_url(url)
