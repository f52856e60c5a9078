"""No request leads inside, and none is refused by trying: not one connection is begun.

Two proofs stand side by side. Whoever listens on this machine sees no connection; and Python itself, which tells of
every ``connect`` of a socket before it is made, tells of none for the port in question.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest

from activities.ports import Answered, NotSent, Reached
from activities.vendors.outward import Blocked, OutwardClient
from domain.webhooks.addresses import Reach
from tests.receivers import receiver
from tests.vendors.inside import ANSWERS, LITERALS, NAMES, TRICKS

HERE = Reach.parse("127.0.0.0/8")


@dataclass
class Watch:
    """Every ``connect`` to one port, while it is on. A hook can never be taken away, only be told to be quiet."""

    port: int | None = None
    seen: list[Any] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and self.port is not None:
            where = arguments[1]
            if isinstance(where, tuple) and where[1] == self.port:
                self.seen.append(where)


_watch = Watch()


@pytest.fixture(scope="module", autouse=True)
def _hooked() -> None:
    sys.addaudithook(_watch)


@pytest.fixture
def watch() -> Iterator[Watch]:
    yield _watch
    _watch.port = None
    _watch.seen.clear()


@asynccontextmanager
async def listening(watch: Watch) -> AsyncIterator[int]:
    """Somebody inside, on every address of this machine, who must not be reached."""
    async with receiver(host="::" if socket.has_dualstack_ipv6() else "0.0.0.0") as inside:
        watch.port = inside.port
        yield inside.port
        assert inside.connections == 0
        assert watch.seen == []


async def asked(url: str, client: OutwardClient) -> Reached:
    try:
        return await client.post(url, {}, b"{}", deadline_seconds=5, read_bytes=10)
    finally:
        await client.close()


def test_there_are_enough_forms() -> None:
    assert len({*LITERALS, *NAMES, *TRICKS}) >= 120
    assert len(set(ANSWERS)) >= 30


async def test_the_watch_sees_what_is_let_through(watch: Watch) -> None:
    async with receiver() as allowed:
        watch.port = allowed.port
        assert isinstance(await asked(allowed.url, OutwardClient(allow=HERE)), Answered)
        assert watch.seen == [("127.0.0.1", allowed.port)]


@pytest.mark.parametrize("url", [f"https://{host}:{{port}}/" for host in (*LITERALS, *NAMES)] + list(TRICKS))
async def test_urls(watch: Watch, url: str) -> None:
    async with listening(watch) as port:
        found = await asked(url.replace("{port}", str(port)), OutwardClient())
        assert isinstance(found, NotSent)
        assert found.blocked


@pytest.mark.parametrize("url", [f"https://{host}:{{port}}/" for host in LITERALS])
async def test_a_list_opens_what_is_on_it_and_nothing_beside(watch: Watch, url: str) -> None:
    async with listening(watch) as port:
        reach = Reach.parse("hooks.corp.example, *.partners.example, 10.77.0.0/16, fd99::/48")
        found = await asked(url.replace("{port}", str(port)), OutwardClient(allow=reach))
        assert found == NotSent(found.reason if isinstance(found, NotSent) else "", blocked=True)


@pytest.mark.parametrize("answer", ANSWERS)
async def test_names_that_resolve_there(watch: Watch, answer: str) -> None:
    async with listening(watch) as port:
        for answers in ([answer], ["93.184.215.14", answer], [answer, "2606:4700::1111"]):
            client = OutwardClient(lookup=lambda _, answers=answers: answers)  # type: ignore[misc]
            found = await asked(f"https://hooks.example.com:{port}/", client)
            assert found == NotSent("its name leads to an address that is not public", blocked=True)


async def test_a_name_that_the_system_knows(watch: Watch) -> None:
    """``/etc/hosts`` has this machine's own name, which looks like any other."""
    async with listening(watch) as port:
        for lookup in (socket.gethostname(), "localhost"):

            def answers(_: str, name: str = lookup) -> Sequence[str]:
                return [str(where[0]) for *_, where in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]

            found = await asked(f"https://hooks.example.com:{port}/", OutwardClient(lookup=answers))
            assert isinstance(found, NotSent)
            assert found.blocked


async def test_a_name_that_changes_its_mind_is_connected_where_it_was_judged(watch: Watch) -> None:
    """Rebinding: another answer each time somebody looks. It is looked at once."""
    told = iter([["127.0.0.2"], ["127.0.0.1"], ["169.254.169.254"]])
    reach = Reach.parse("127.0.0.2/32")
    async with receiver(host="0.0.0.0") as there:
        watch.port = there.port
        client = OutwardClient(allow=reach, lookup=lambda _: next(told))
        # Not on the list by its name, so by HTTPS only; nobody speaks TLS here, and the connection shows where it went.
        found = await asked(f"https://hooks.example.com:{there.port}/", client)
        assert isinstance(found, NotSent)
        assert not found.blocked
        assert watch.seen == [("127.0.0.2", there.port)]
        again = await asked(f"https://hooks.example.com:{there.port}/", client)
        assert again == NotSent("its name leads to an address that is not public", blocked=True)
        assert len(watch.seen) == 1


async def test_a_listed_name_may_be_inside_but_never_where_clouds_keep_their_keys(watch: Watch) -> None:
    reach = Reach.parse("hooks.corp")
    async with receiver() as there:
        watch.port = there.port
        url = f"http://hooks.corp:{there.port}/"
        assert isinstance(await asked(url, OutwardClient(allow=reach, lookup=lambda _: ["127.0.0.1"])), Answered)
        assert len(watch.seen) == 1
        for answer in ("169.254.169.254", "fd00:ec2::254", "::ffff:127.0.0.1", "0.0.0.0", "fe80::1%eth0"):
            found = await asked(url, OutwardClient(allow=reach, lookup=lambda _, answer=answer: [answer]))  # type: ignore[misc]
            assert isinstance(found, NotSent)
            assert found.blocked
        assert len(watch.seen) == 1


async def test_what_is_barred_is_refused_though_it_be_public_or_listed_by_name(watch: Watch) -> None:
    reach = Reach.parse("hooks.corp, !93.184.215.0/24, !127.0.0.0/8")
    async with listening(watch) as port:
        for url in (f"https://93.184.215.14:{port}/", f"https://hooks.corp:{port}/"):
            found = await asked(url, OutwardClient(allow=reach, lookup=lambda _: ["127.0.0.1"]))
            assert isinstance(found, NotSent)
            assert found.blocked


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_socket_itself_is_refused_whoever_asks_for_it(answer: str) -> None:
    """The last judge believes neither the URL's parser nor the resolver."""
    address = ip_address(answer)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    where = (answer, 443) if address.version == 4 else (answer, 443, 0, 0)
    with pytest.raises(Blocked):
        OutwardClient()._socket((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where))


def test_no_other_family_of_sockets() -> None:
    with pytest.raises(Blocked):
        OutwardClient()._socket((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/run/docker.sock"))


async def test_proxies_and_passwords_of_the_environment_are_not_used(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login us password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with receiver() as there, listening(watch) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        found = await asked(there.url, OutwardClient(allow=HERE))
        assert isinstance(found, Answered)
        assert "authorization" not in there.requests[0].headers


async def test_a_redirect_is_an_answer_and_nobody_follows_it(watch: Watch) -> None:
    async with listening(watch) as port:
        for status in (301, 302, 303, 307, 308):
            moved = (
                f"HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n".encode()
            )

            async def redirect(line: Any, moved: bytes = moved) -> None:
                await line.request()
                await line.say(moved)

            async with receiver(redirect) as there:
                found = await asked(there.url, OutwardClient(allow=HERE))
                assert isinstance(found, Answered)
                assert (found.status, len(there.requests)) == (status, 1)
