"""Which URLs and addresses are connected to: the spellings of private ones, and what may be listed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.sinks.peers import PeerRefused, Peers, parse_endpoint, parse_network

PUBLIC = ("8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450::1", "64:ff9b::8.8.8.8")
INSIDE = (
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.1.2.3"),
    *("168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1"),
    *("192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254"),
    *("::10.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::1", "100::1"),
    *("2001::1", "2001:db8::1", "2002:a00:1::1", "2002:7f00:1::1", "2002:a9fe:a9fe::1", "3fff::1"),
    *("fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1"),
)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_connected_to(address: str) -> None:
    Peers("example.com").check(address)


@pytest.mark.parametrize("address", [*INSIDE, "", "localhost", "10.1", "0x7f000001", "2130706433"])
def test_others_are_not(address: str) -> None:
    with pytest.raises(PeerRefused):
        Peers("example.com").check(address)


def test_a_listed_network_is_and_its_neighbour_is_not() -> None:
    peers = Peers("hooks.internal", [parse_network("10.1.0.0/16"), parse_network("fd00:1::/32")])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5"):
        peers.check(address)
    for address in ("10.2.0.1", "fd00:2::1"):
        with pytest.raises(PeerRefused, match="list its network in 'allow_private'"):
            peers.check(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "::ffff:127.0.0.1"])
def test_no_list_leads_to_this_machine(address: str) -> None:
    everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    with pytest.raises(PeerRefused, match="this machine, or none"):
        Peers("example.com", everything).check(address)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_a_host_that_says_loopback_leads_there_and_nowhere_else(host: str) -> None:
    Peers(host).check("127.0.0.1")
    Peers(host).check("::1")
    for address in ("8.8.8.8", "10.0.0.1"):
        with pytest.raises(PeerRefused, match="not of this machine"):
            Peers(host, [ip_network("10.0.0.0/8")]).check(address)


@given(st.ip_addresses(v=4))
def test_what_embeds_an_address_is_judged_by_it(address: IPv4Address) -> None:
    number = int(address)
    forms = [
        IPv6Address(0xFFFF << 32 | number),
        IPv6Address(0x2002 << 112 | number << 80 | 1),
        IPv6Address(0x64FF9B << 96 | number),
    ]
    verdicts = {_is_refused(str(form)) for form in (address, *forms)}
    assert len(verdicts) == 1, address


def _is_refused(address: str) -> bool:
    try:
        Peers("example.com").check(address)
    except PeerRefused:
        return True
    return False


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/hooks/T0ken%2F?key=a%20b",
        "https://EXAMPLE.com./x",
        "https://xn--bcher-kva.example/",
        "https://[2606:4700:4700::1111]/",
        "http://localhost:8080/",
        "http://127.0.0.1:8080/",
        "http://[::1]/",
    ],
)
def test_urls_are_sent_to_as_they_are_written(url: str) -> None:
    assert str(parse_endpoint(url)) == url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("value-of-URL", "no URL to post to"),
        ("https://", "no URL"),
        ("https:///canary", "no URL"),
        ("ftp://example.com/", "no URL"),
        ("file:///etc/passwd", "no URL"),
        ("gopher://127.0.0.1/", "no URL"),
        ("unix:///run/docker.sock", "no URL"),
        ("https://[::1", "no URL"),
        ("https://example.com:0/", "no URL"),
        ("https://example.com:99999/", "no URL"),
        ("https://exa mple.com/", "percent-encoded"),
        ("https://example.com/\r\nX: 1", "percent-encoded"),
        ("https://example.com\\@10.0.0.1/", "percent-encoded"),
        ("https://bücher.example/", "percent-encoded"),
        ("https://user:canary@example.com/", "use 'credential'"),
        ("https://canary@example.com/", "use 'credential'"),
        ("https://example.com/#canary", "never sent"),
        ("http://example.com/", "plain http is for this machine"),
        ("http://10.0.0.1/", "plain http is for this machine"),
        ("http://localhost.example.com/", "plain http is for this machine"),
        ("https://2130706433/", "the host is a number"),
        ("https://0x7f000001/", "the host is a number"),
        ("https://0x7f.1/", "the host is a number"),
        ("https://017700000001/", "the host is a number"),
        ("https://0177.0.0.1/", "the host is a number"),
        ("https://127.1/", "the host is a number"),
        ("https://10.0.1/", "the host is a number"),
        ("https://1.2.3.4.5/", "the host is a number"),
        ("https://a..b/", "not a name in ASCII"),
        ("https://%31%32%37.0.0.1/", "the host is a number"),
        ("https://example.com%2F/", "not a name in ASCII"),
    ],
)
def test_what_is_no_url_to_post_to_is_said_without_showing_it(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse_endpoint(url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("text", ["10.1.0.1/16", "10.1.0.0/33", "example.com", "", 10])
def test_what_is_no_network_is_said(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a network .* write one like 10\.1\.0\.0/16"):
        parse_network(text)
