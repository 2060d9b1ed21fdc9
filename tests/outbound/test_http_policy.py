"""Where the outbound client goes and where it does not (platform traps T24 and T25, trap 30)."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleetprompt.outbound.addresses import is_reachable
from fleetprompt.outbound.http import (
    ConnectFailedError,
    OutboundClient,
    OutboundError,
    RefusedError,
    Resolver,
    ResponseLostError,
    parse_target,
)
from fleetprompt.settings import Settings

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

CANARY = "canary7secret7path7must7not7leak"


def settings(*networks: str, plain: bool = True) -> Settings:
    allowed = tuple(ip_network(network) for network in networks)
    return Settings(allowed_private_networks=allowed, allow_plain_http=plain)


def answers(*addresses: str) -> Resolver:
    async def resolver(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolver


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a port of 127.0.0.1; at the end its connections are closed."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.transport.abort()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(handle(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def listening(
    behave: Callable[[asyncio.StreamWriter], object] | None = None,
    tls: ssl.SSLContext | None = None,
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that keeps each request's head and gives one answer."""
    heads: list[bytes] = []

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if behave is not None:
            behave(writer)
        writer.write(answer)
        await writer.drain()
        await reader.read()

    async with serving(answer_once, tls) as port:
        yield port, heads


REFUSED_ADDRESSES = [
    "0.0.0.1", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.9.9.9",
    "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192",
    "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1",
    "64:ff9b:1::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "fc00::1", "fd00:ec2::254",
    "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "3fff::1", "not an address", "",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
async def test_reserved_addresses_are_refused_wherever_they_come_from(address: str) -> None:
    assert not is_reachable(address, ())
    client = OutboundClient(settings(), resolver=answers(address))
    with pytest.raises(RefusedError):
        await client.request("GET", "http://name.example/")


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "2606:4700::1", "2a00:1450::1"])
def test_public_addresses_are_reachable(address: str) -> None:
    assert is_reachable(address, ())


def test_one_allowed_network_opens_no_other() -> None:
    """GitLab #293733."""
    allowed = (ip_network("10.1.0.0/16"), ip_network("127.0.0.1/32"))
    assert is_reachable("10.1.2.3", allowed)
    for other in ("10.2.0.1", "127.0.0.2", "::1", "::ffff:10.1.2.3", "2002:a01:203::"):
        assert not is_reachable(other, allowed)


async def test_a_single_bad_address_among_the_answers_refuses_all() -> None:
    resolver = answers("8.8.8.8", "127.0.0.1", "10.0.0.1")
    client = OutboundClient(settings("127.0.0.0/8"), resolver=resolver)
    with pytest.raises(RefusedError, match=r"name\.example"):
        await client.request("GET", "http://name.example/")


REFUSED_URLS = [
    "http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0x7f000001/",
    "http://017700000001/", "http://0177.0.0.1/", "http://127.0.0.1./", "http://localhost./",
    "http://user@name.example/", "http://user:pass@name.example/", "http://@name.example/",
    "http://[fe80::1%25eth0]/", "http://[::ffff:127.0.0.1]/", "http://[::1]/", "http://127.0.0.1/",
    "http://0/", "http://0.0.0.0/",
    "ftp://name.example/", "file:///etc/passwd", "gopher://name.example/", "//name.example/",
    "name.example", "", "http:///x", "http://name.example:0/", "http://name.example:99999/",
    "http://name.example\\@127.0.0.1/", "http://na me.example/", "http://name.example/\r\nX: y",
    "http://127。0。0。1/", "http://①②⑦.0.0.1/", "http://exa\u200bmple\uff0f.example/",
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED_URLS)
async def test_tricky_urls_are_refused_before_any_connection(url: str) -> None:
    client = OutboundClient(settings())
    with pytest.raises(RefusedError):
        await client.request("GET", url)


def test_names_in_other_scripts_are_asked_for_in_ascii() -> None:
    target = parse_target("https://bücher.example:8443/a?b=c", allow_plain_http=False)
    assert (target.host, target.port) == ("xn--bcher-kva.example", 8443)
    assert target.host_header == "xn--bcher-kva.example:8443"
    assert target.path == "/a?b=c"
    assert parse_target("https://[2606:4700::1]/", allow_plain_http=False).host_header == (
        "[2606:4700::1]"
    )


async def test_plain_http_needs_the_operator() -> None:
    client = OutboundClient(settings("127.0.0.0/8", plain=False))
    with pytest.raises(RefusedError, match="not encrypted"):
        await client.request("GET", "http://127.0.0.1:9/")


async def test_rebinding_between_check_and_use_has_no_effect() -> None:
    """The name is asked once; the connection goes to what was vetted (TTL 0)."""
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    async with listening() as (port, heads):
        client = OutboundClient(settings("127.0.0.1/32"), resolver=rebinding)
        reply = await client.request("POST", f"http://rebind.example:{port}/x", content=b"{}")
        assert (reply.status, reply.body, asked) == (200, b"ok", ["rebind.example"])
        assert f"Host: rebind.example:{port}\r\n".encode() in heads[0]
        with pytest.raises(RefusedError):
            await client.request("POST", f"http://rebind.example:{port}/x")
        assert len(heads) == 1


async def test_redirects_proxies_and_cookies_are_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Traps 4 and 29, and the proxy variables (Hook0)."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    moved = (
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n"
        b"Set-Cookie: MMAUTHTOKEN=x\r\nContent-Length: 0\r\n\r\n"
    )
    async with listening(answer=moved) as (port, heads):
        client = OutboundClient(settings("127.0.0.0/8"))
        for _ in range(2):
            assert (await client.request("GET", f"http://127.0.0.1:{port}/")).status == 302
        assert len(heads) == 2
        assert not any(b"cookie" in head.lower() for head in heads)


async def test_an_unknown_name_and_a_closed_port_sent_nothing() -> None:
    async def failing(host: str, port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    with pytest.raises(ConnectFailedError, match="cannot be resolved"):
        await OutboundClient(settings(), resolver=failing).request("GET", "http://name.example/")
    async with listening() as (port, _):
        pass
    client = OutboundClient(settings("127.0.0.0/8"))
    with pytest.raises(ConnectFailedError, match="does not take connections"):
        await client.request("GET", f"http://127.0.0.1:{port}/")


async def test_the_second_address_is_tried_when_the_first_is_closed() -> None:
    async with listening() as (port, _):
        resolver = answers("127.0.0.9", "127.0.0.1")
        client = OutboundClient(settings("127.0.0.0/8"), resolver=resolver)
        assert (await client.request("GET", f"http://two.example:{port}/")).status == 200


async def test_a_slow_resolver_counts_against_the_deadline() -> None:
    async def slow(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return []

    client = OutboundClient(settings(), resolver=slow)
    with pytest.raises(ConnectFailedError, match="No answer within"):
        await client.request("GET", "http://slow.example/", deadline_seconds=0.1)


async def test_what_breaks_after_the_first_byte_is_ambiguous() -> None:
    client = OutboundClient(settings("127.0.0.0/8"))
    async with listening(behave=lambda writer: writer.transport.abort()) as (port, _):
        with pytest.raises(ResponseLostError) as caught:
            await client.request("POST", f"http://127.0.0.1:{port}/", content=b"x")
    assert caught.value.may_have_arrived
    async with listening(answer=b"") as (port, _):
        with pytest.raises(ResponseLostError):
            await client.request("POST", f"http://127.0.0.1:{port}/", deadline_seconds=0.2)
    async with listening(answer=b"not http at all\r\n\r\n") as (port, _):
        with pytest.raises(ResponseLostError):
            await client.request("POST", f"http://127.0.0.1:{port}/")


async def test_a_long_body_is_cut_and_a_broken_one_keeps_its_status() -> None:
    """Trap 31."""
    client = OutboundClient(settings("127.0.0.0/8"))
    endless = b"HTTP/1.1 400 Bad\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 200_000
    async with listening(answer=endless) as (port, _):
        reply = await client.request("GET", f"http://127.0.0.1:{port}/", read_limit=100)
        assert (reply.status, len(reply.body), reply.body_complete) == (400, 100, False)
    stuck = b"HTTP/1.1 403 No\r\nContent-Length: 10\r\n\r\nab"
    async with listening(answer=stuck) as (port, _):
        reply = await client.request("GET", f"http://127.0.0.1:{port}/", deadline_seconds=0.3)
        assert (reply.status, reply.body, reply.body_complete) == (403, b"ab", False)


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate for the name, and the file that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, chain = folder / "trusted.pem", folder / "chain.pem"
    pem = serialization.Encoding.PEM
    trusted.write_bytes(made.public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain.write_bytes(private + made.public_bytes(pem))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    return server, trusted


async def test_tls_verifies_the_name_though_the_connection_is_pinned(tmp_path: Path) -> None:
    server, trusted = certificate(tmp_path, "chat.example")
    asked: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: asked.append(name)
    client = OutboundClient(
        settings("127.0.0.0/8", plain=False),
        resolver=answers("127.0.0.1"),
        ssl_context=ssl.create_default_context(cafile=trusted),
    )
    async with listening(tls=server) as (port, heads):
        assert (await client.request("GET", f"https://chat.example:{port}/")).status == 200
        assert asked == ["chat.example"]
        with pytest.raises(ConnectFailedError, match="TLS"):
            await client.request("GET", f"https://other.example:{port}/")
        assert len(heads) == 1


async def test_a_port_that_speaks_no_tls_sent_nothing() -> None:
    client = OutboundClient(settings("127.0.0.0/8"))

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    for handler in (hang_up, say_nothing):
        async with serving(handler) as port:
            with pytest.raises(ConnectFailedError):
                await client.request("GET", f"https://127.0.0.1:{port}/", deadline_seconds=0.3)


async def test_no_part_of_the_url_but_the_host_is_ever_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Trap 2 and T25, with the libraries' own loggers on; a redirect repeats the path."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        caplog.set_level(logging.DEBUG, logger=name)
    client = OutboundClient(settings("127.0.0.0/8"))
    echo = f"HTTP/1.1 302 Found\r\nLocation: /mm/{CANARY}\r\nX-{CANARY}: 1\r\n"
    echo += f"Content-Length: {len(CANARY)}\r\n\r\n{CANARY}"
    told: list[object] = [client]
    async with listening(answer=echo.encode()) as (port, _):
        told.append(await client.request("GET", f"http://127.0.0.1:{port}/{CANARY}?{CANARY}"))
    urls = [
        f"http://127.0.0.1:{port}/{CANARY}",
        f"http://10.0.0.1/{CANARY}",
        f"http://u:{CANARY}@name.example/",
        f"ftp://name.example/{CANARY}",
        f"http://[{CANARY}",
    ]
    for url in urls:
        with pytest.raises(OutboundError) as caught:
            await client.request("GET", url)
        error: BaseException | None = caught.value
        while error is not None:
            told += [str(error), repr(error), error.args]
            error = error.__cause__ or error.__context__
    told += [record.getMessage() for record in caplog.records]
    assert "GET to 127.0.0.1 answered 302" in caplog.text
    assert CANARY not in repr(told) + caplog.text
