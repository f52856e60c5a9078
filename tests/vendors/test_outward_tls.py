"""The one door outwards, by TLS: nothing is sent to a server that cannot show who it is."""

from __future__ import annotations

import ssl
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from activities.ports import Answered, NotSent
from activities.vendors.outward import OutwardClient
from domain.webhooks.addresses import Reach
from kit.clock import now
from tests.outward import post
from tests.receivers import Line, obedient, receiver

REACH = Reach.parse("127.0.0.0/8, hooks.corp.example")


def certificate(folder: Path, *, age: timedelta = timedelta()) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server shows, for itself and for those who trust it; begun ``age`` ago, for a day."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    names = x509.SubjectAlternativeName([x509.DNSName("hooks.corp.example"), x509.IPAddress(ip_address("127.0.0.1"))])
    begun = now() - age
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(begun - timedelta(minutes=1))
        .not_valid_after(begun + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    shown, held = folder / "cert.pem", folder / "key.pem"
    shown.write_bytes(made.public_bytes(Encoding.PEM))
    held.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(shown, held)
    return server, ssl.create_default_context(cafile=shown)


async def test_a_server_that_shows_who_it_is(tmp_path: Path) -> None:
    server, trust = certificate(tmp_path)
    async with receiver(obedient, tls=server) as there:
        client = OutwardClient(allow=REACH, tls=trust, lookup=lambda _: ["127.0.0.1"])
        for url in (there.url, f"https://hooks.corp.example:{there.port}/hook", there.url):
            assert isinstance(await post(client, url), Answered)
        assert there.connections == 2, "one for each host"
        await client.close()


@pytest.mark.parametrize(
    ("host", "trusted", "age_days", "reason"),
    [
        ("127.0.0.1", False, 0, "self-signed certificate"),
        ("127.0.0.2", True, 0, "IP address mismatch"),
        ("127.0.0.1", True, 3, "certificate has expired"),
    ],
)
async def test_a_server_that_does_not_is_sent_nothing(
    tmp_path: Path, host: str, trusted: bool, age_days: int, reason: str
) -> None:
    server, trust = certificate(tmp_path, age=timedelta(days=age_days))
    async with receiver(obedient, tls=server, host="0.0.0.0") as there:
        client = OutwardClient(allow=REACH, tls=trust if trusted else None)
        found = await post(client, f"https://{host}:{there.port}/")
        assert isinstance(found, NotSent)
        assert found.reason.startswith("the server's certificate is not accepted: ")
        assert reason in found.reason
        assert not found.blocked
        assert there.requests == []
        await client.close()


async def test_no_tls_where_it_was_asked_for(tmp_path: Path) -> None:
    async def plain(line: Line) -> None:
        await line.say(b"HTTP/1.1 400 Bad\r\n\r\n")

    async with receiver(plain) as there:
        client = OutwardClient(allow=REACH)
        found = await post(client, f"https://127.0.0.1:{there.port}/")
        assert isinstance(found, NotSent)
        assert found.reason in {"no TLS with the server", "no connection: reset"}
        await client.close()


async def test_a_flood_by_tls_is_cut_off(tmp_path: Path) -> None:
    """Closing TLS politely would mean to read on."""
    server, trust = certificate(tmp_path)

    async def flood(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
        for _ in range(100):
            await line.say(b"x" * 1_048_576)

    async with receiver(flood, tls=server) as there:
        client = OutwardClient(allow=REACH, tls=trust)
        found = await post(client, there.url)
        assert isinstance(found, Answered)
        assert found.truncated
        await there.broken.wait()
        assert there.written < 20 * 1_048_576
        await client.close()
