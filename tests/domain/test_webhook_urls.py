"""What may be an endpoint's URL."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from socket import inet_aton, inet_ntoa
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Refusal
from domain.webhooks.addresses import Reach, public
from domain.webhooks.urls import URL_LENGTH_MAX, Target, target_of
from tests.vendors.inside import ANSWERS, LITERALS, NAMES, TRICKS

WORLD = Reach()


def refused(url: str, reach: Reach = WORLD) -> str:
    with pytest.raises(Refusal) as error:
        target_of(url, reach)
    assert (error.value.code, error.value.field) == ("webhook_url_refused", "url")
    return error.value.message


@pytest.mark.parametrize(
    ("url", "host", "port", "shown"),
    [
        ("https://hooks.example.com", "hooks.example.com", 443, "https://hooks.example.com/"),
        ("https://hooks.example.com:443/a", "hooks.example.com", 443, "https://hooks.example.com:443/a"),
        ("https://hooks.example.com:8443/", "hooks.example.com", 8443, "https://hooks.example.com:8443/"),
        ("HTTPS://Hooks.Example.COM/Path", "hooks.example.com", 443, "https://hooks.example.com/Path"),
        ("https://a_b.example.com/", "a_b.example.com", 443, "https://a_b.example.com/"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, "https://xn--bcher-kva.example/"),
        ("https://example.com?a=b&c=%20", "example.com", 443, "https://example.com/?a=b&c=%20"),
        ("https://example.com/a/../b;c/[x]?y=/@:!$'()*+,", "example.com", 443, None),
        ("https://93.184.215.14/", "93.184.215.14", 443, "https://93.184.215.14/"),
        ("https://[2606:4700::1111]/", "2606:4700::1111", 443, "https://[2606:4700::1111]/"),
        ("https://1.2.3.4.example.com/", "1.2.3.4.example.com", 443, "https://1.2.3.4.example.com/"),
        ("https://123.com/", "123.com", 443, "https://123.com/"),
        ("https://my.localhost.example.com/", "my.localhost.example.com", 443, None),
    ],
)
def test_the_public_internet_by_https(url: str, host: str, port: int, shown: str | None) -> None:
    found = target_of(url, WORLD)
    assert (found.host, found.port, found.https, found.listed) == (host, port, True, False)
    assert found.url == (shown or url)


@pytest.mark.parametrize("host", [*LITERALS, *NAMES])
def test_nothing_inside(host: str) -> None:
    refused(f"https://{host}/")


@pytest.mark.parametrize("url", TRICKS)
def test_no_tricks(url: str) -> None:
    refused(url.replace("{port}", "8443"))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "must be https://host/path"),
        ("hooks.example.com", "must be https://host/path"),
        ("https://", "must be https://host/path"),
        ("http://hooks.example.com/", "must begin with https://"),
        ("ftp://hooks.example.com/", "must begin with https://"),
        ("https://user:pass@hooks.example.com/", "may not hold a user's name"),
        ("https://@hooks.example.com/", "may not hold a user's name"),
        ("https://hooks.example.com/#part", "may not have a fragment"),
        ("https://hooks.example.com/é", "must be in ASCII"),
        ("https://bücher.example/", "must be in ASCII"),
        ("https://hooks.example.com/a b", "percent-encoded"),
        ("https://hooks.example.com/%zz", "percent-encoded"),
        ("https://hooks.example.com/a\\b", "percent-encoded"),
        ("https://hooks.example.com/a\r\nX: y", "percent-encoded"),
        ("https://hooks.example.com/{id}", "percent-encoded"),
        ("https://hooks.example.com:0/", "a port from 1"),
        ("https://hooks.example.com:65536/", "a port from 1"),
        ("https://hooks.example.com:99999/", "a port from 1"),
        ("https://hooks.example.com:/", "must be https://host/path"),
        ("https://hooks.example.com:22/", "must have port 443"),
        ("https://hooks.example.com:80/", "must have port 443"),
        ("https://hooks.example.com:6379000/", "must be https://host/path"),
        ("https://hooks.example.com:6667/", "must have port 443"),
        ("https://hooks.example.com./", "full name"),
        ("https://hooks..example.com/", "full name"),
        ("https://-hooks.example.com/", "full name"),
        ("https://hooks-.example.com/", "full name"),
        (f"https://{'a' * 64}.example.com/", "full name"),
        (f"https://{'a.' * 127}com/", "full name"),
        ("https://hooks/", "the public Internet knows"),
        ("https://hooks.example.com/" + "a" * URL_LENGTH_MAX, f"may have {URL_LENGTH_MAX}"),
    ],
)
def test_syntax(url: str, why: str) -> None:
    assert why in refused(url)


def test_the_field_is_the_callers() -> None:
    with pytest.raises(Refusal) as error:
        target_of("x", WORLD, field="contacts.0.url")
    assert error.value.field == "contacts.0.url"


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("http://hooks.corp/", True),
        ("http://hooks.corp:25/", True),
        ("https://HOOKS.corp:8080/", True),
        ("http://a.b.partners.internal/", True),
        ("http://partners.internal/", False),
        ("http://xpartners.internal/", False),
        ("http://hooks.corp.example.com/", False),
        ("http://10.1.2.3:9000/", True),
        ("http://10.2.0.1/", False),
        ("http://[fd99::5]/", True),
        ("http://[fd98::5]/", False),
        ("http://localhost/", False),
        ("http://0x0a010203/", False),
        ("http://hooks.corp./", False),
        ("ftp://hooks.corp/", False),
    ],
)
def test_a_list_opens_what_stands_on_it(url: str, fine: bool) -> None:
    reach = Reach.parse(" hooks.corp, *.partners.internal,10.1.0.0/16,, fd99::/16")
    if fine:
        assert target_of(url, reach).listed
    else:
        refused(url, reach)


@pytest.mark.parametrize(
    "text", ["a b", "http://hooks.corp", "10.0.0.1/8", "hooks.corp:80", "!hooks", "0x7f.1", "127.1", "*"]
)
def test_a_list_at_fault_names_its_entry(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        Reach.parse(f"hooks.corp,{text}")


def test_an_empty_list_is_none() -> None:
    assert Reach.parse("") == Reach.parse(" , ") == WORLD


@pytest.mark.parametrize("answer", ANSWERS)
def test_addresses_that_are_not_public(answer: str) -> None:
    assert not public(ip_address(answer))
    assert not WORLD.admits(ip_address(answer))


@pytest.mark.parametrize(
    "answer", ["1.1.1.1", "93.184.215.14", "172.32.0.1", "2606:4700::1111", "2a00:1450::1", "2001:200::1"]
)
def test_addresses_that_are(answer: str) -> None:
    assert WORLD.admits(ip_address(answer))
    assert not Reach.parse(f"!{answer}").admits(ip_address(answer))
    assert Reach.parse(f"!{answer}, {answer}").admits(ip_address(answer)), "what is listed outright is meant"


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_public(address: object) -> None:
    """Python's own idea, each version with holes of its own, is the floor."""
    found = ip_address(str(address))
    if public(found):
        assert found.is_global
        assert not any((found.is_multicast, found.is_reserved, found.is_loopback, found.is_link_local))
        assert not isinstance(found, IPv6Address) or (found.ipv4_mapped, found.sixtofour, found.teredo) == (None,) * 3


@st.composite
def written_oddly(draw: st.DrawFn) -> str:
    """An address of IPv4 in a form that C's ``inet_aton`` reads: one to four parts, each decimal, octal or hex."""
    address = draw(st.integers(0, 2**32 - 1))
    count = draw(st.integers(1, 4))
    parts = [address >> 8 * (3 - n) & 255 for n in range(count - 1)]
    parts.append(address & (2 ** (8 * (5 - count)) - 1))
    forms = [draw(st.sampled_from(("{}", "0{:o}", "0x{:x}", "0X{:X}", "0x00{:x}"))).format(part) for part in parts]
    return ".".join(forms)


@given(written_oddly())
def test_an_address_is_read_in_one_form_only(host: str) -> None:
    packed = inet_aton(host)
    if host == inet_ntoa(packed):
        assert public(ip_address(host)) == _accepted(host)
    else:
        assert not _accepted(host)


def _accepted(host: str) -> bool:
    try:
        return target_of(f"https://{host}/", WORLD).address == ip_address(host)
    except Refusal:
        return False


@given(st.text("htps:/@\\[]#?%.0127xaé-_ \t\n", max_size=40) | st.from_regex(r"https://[ -~]{1,40}", fullmatch=True))
def test_what_is_accepted_is_read_alike_by_another_parser(url: str) -> None:
    try:
        found: Target = target_of(url, WORLD)
    except Refusal:
        return
    other = urlsplit(found.url)
    assert (other.scheme, other.hostname, other.port or 443) == ("https", found.host, found.port)
    assert (other.username, other.password, other.fragment) == (None, None, "")
