"""Where notifications may go: to the internet, and not to what only the server itself can reach."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from wallet_appservice.payments.merchants.addresses import (
    AddressRefused,
    GuardedNetwork,
    check_url,
    is_public,
)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "2001:0:0:0:0:0:80ff:fffe",
        "2001:db8::1",
    ],
)
def test_an_address_of_our_own_network_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.example",
        "ftp://shop.example/",
        "http://shop.example/",
        "https://",
        "https://:443/",
        "https://shop.example:0/",
        "https://shop.example:99999/",
        "https://shop.example/#part",
        "https://user:password@shop.example/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://shop.example/a b",
        "https://shöp.example/",
        "https://shop.example/\n",
        "https://shop.example/" + "x" * 500,
    ],
)
def test_a_url_to_which_nothing_may_be_sent_is_refused_at_once(url: str) -> None:
    with pytest.raises(AddressRefused, match=r"\.$"):
        check_url(url, private_allowed=False)


def test_an_operator_may_allow_private_addresses() -> None:
    check_url("http://127.0.0.1:8080/hook", private_allowed=True)
    check_url("https://shop.example:8443/hook?shop=1", private_allowed=False)


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], [], ["fe80::1%eth0"]])
async def test_a_name_that_stands_for_a_private_address_is_not_connected_to(addresses: list[str]) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return addresses

    network = GuardedNetwork(private_allowed=False, resolve=resolve)
    with pytest.raises(AddressRefused):
        await network.connect_tcp("shop.example", 443)


async def test_a_name_is_looked_up_once_for_the_check_and_the_connection() -> None:
    # A name that would stand for a private address at a second look.
    looked: list[str] = []

    async def resolve(host: str, _port: int) -> list[str]:
        looked.append(host)
        return ["203.0.113.1"] if len(looked) > 1 else ["127.0.0.1"]

    network = GuardedNetwork(private_allowed=True, resolve=resolve)
    with pytest.raises(Exception, match=r"refused|failed|attempts"):
        await network.connect_tcp("shop.example", 1)
    assert looked == ["shop.example"]
