"""Pictures come from public hosts alone, and what was judged is what is connected to."""

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from consumer.destinations import Destinations, Forbidden, is_public
from consumer.lines import Lines
from consumer.pictures import DownloadFailed, download
from tests.flow.working import PNG
from tests.hosts import Host, Names

TIMEOUT = httpx.Timeout(5.0)
PROVIDER = "https://modelslab.com"


PUBLIC = ["8.8.8.8", "172.15.0.1", "172.32.0.1", "192.0.1.1", "100.63.0.1", "2606:4700::1111", "64:ff9b::808:808"]
PRIVATE = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.9.9.9", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "fc00::1", "fd12:3456::1",
    "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "5f00::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_our_own_or_of_nobody(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_however_it_is_wrapped(address: ipaddress.IPv4Address) -> None:
    assert is_public(ipaddress.IPv6Address(f"::ffff:{address}")) is is_public(address)
    assert is_public(ipaddress.IPv6Address(f"64:ff9b::{address}")) is is_public(address)
    # never more than what Python's own lists know as global (they may lack some)
    assert address.is_global or address.is_multicast or not is_public(address)


ALLOWED = [
    (PROVIDER, "https://cdn.modelslab.com/a.png"),
    (PROVIDER, "http://cdn.modelslab.com/a.png"),
    (PROVIDER, "https://8.8.8.8/a.png"),
    (PROVIDER, "http://[2606:4700::1111]/a.png"),
    ("http://127.0.0.1:8703", "http://127.0.0.1:8703/a.png"),
    ("http://127.0.0.1:8703", "http://127.0.0.2:9000/a.png"),
    ("http://localhost:8703", "http://[::1]:1/a.png"),
    ("http://127.0.0.1:8703", "http://localhost:8703/a.png"),
    ("http://simulator:8703", "http://simulator:8703/a.png"),
    ("http://10.0.0.7:8703", "http://10.0.0.7:8703/a.png"),
]
REFUSED = [
    (PROVIDER, "ftp://cdn.modelslab.com/a.png"),
    (PROVIDER, "file:///etc/passwd"),
    (PROVIDER, "https://user@cdn.modelslab.com/a.png"),
    (PROVIDER, "https://:word@cdn.modelslab.com/a.png"),
    (PROVIDER, "https://cdn.modelslab.com:22/a.png"),
    (PROVIDER, "https://cdn.modelslab.com:8080/a.png"),
    (PROVIDER, "https://8.8.8.8:9200/a.png"),
    (PROVIDER, "http://127.0.0.1/a.png"),
    (PROVIDER, "http://[::1]/a.png"),
    (PROVIDER, "http://[::ffff:127.0.0.1]/a.png"),
    (PROVIDER, "http://169.254.169.254/latest/meta-data"),
    ("http://simulator:8703", "http://simulator:5432/a.png"),
    ("http://10.0.0.7:8703", "http://10.0.0.7:5432/a.png"),
    ("http://10.0.0.7:8703", "http://127.0.0.1:8703/a.png"),
    # loopback is no licence for the rest of the network
    ("http://127.0.0.1:8703", "http://10.0.0.1/a.png"),
    ("http://127.0.0.1:8703", "http://169.254.169.254/latest/meta-data"),
]


@pytest.mark.parametrize(("provider", "url"), ALLOWED)
def test_addresses_that_may_be_asked(provider: str, url: str) -> None:
    Destinations(provider).judge(URL(url))


@pytest.mark.parametrize(("provider", "url"), REFUSED)
def test_addresses_that_may_not(provider: str, url: str) -> None:
    with pytest.raises(Forbidden):
        Destinations(provider).judge(URL(url))


async def test_of_a_names_addresses_only_public_ones_are_connected_to() -> None:
    names = Names(cdn_test=[["10.0.0.1", "8.8.8.8", "::1", "2606:4700::1111"]], inside_test=[["10.0.0.1", "::1"]])
    destinations = Destinations(PROVIDER, resolver=names)
    assert [one["host"] for one in await destinations.resolve("cdn.test", 443)] == ["8.8.8.8", "2606:4700::1111"]
    with pytest.raises(Forbidden, match=r"inside\.test port 443 is at 10\.0\.0\.1"):
        await destinations.resolve("inside.test", 443)
    with pytest.raises(OSError, match="no such name"):
        await destinations.resolve("nowhere.test", 443)


async def test_the_providers_own_host_may_be_in_our_network_on_its_own_port() -> None:
    names = Names(simulator=[["172.18.0.4"]], db_test=[["172.18.0.5"]])
    destinations = Destinations("http://simulator:8703/api/v7", resolver=names)
    assert [one["host"] for one in await destinations.resolve("simulator", 8703)] == ["172.18.0.4"]
    for host, port in (("simulator", 80), ("db.test", 8703)):
        with pytest.raises(Forbidden):
            await destinations.resolve(host, port)


async def test_a_public_providers_name_is_no_licence() -> None:
    destinations = Destinations(PROVIDER, resolver=Names(modelslab_com=[["127.0.0.1"]]))
    with pytest.raises(Forbidden):
        await destinations.resolve("modelslab.com", 443)


@asynccontextmanager
async def client_of(destinations: Destinations) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=Lines(destinations=destinations), timeout=TIMEOUT) as client:
        yield client


async def test_a_name_that_leads_home_is_not_connected_to() -> None:
    async with Host({"/a.png": PNG}).on("127.0.0.1") as host:
        # port 80 would be allowed: what refuses is the address
        names = Names(cdn_test=[["127.0.0.1"]])
        async with client_of(Destinations(PROVIDER, resolver=names)) as client:
            with pytest.raises(DownloadFailed, match=r"cdn\.test port 80 is at 127\.0\.0\.1") as caught:
                await download(client, ["http://cdn.test/a.png"])
            assert not caught.value.retryable
            for url in (f"http://127.0.0.1:{host.port}/a.png", f"http://cdn.test:{host.port}/a.png"):
                with pytest.raises(DownloadFailed):
                    await download(client, [url])
        assert host.connections == 0


async def test_a_name_that_changes_its_meaning_gains_nothing() -> None:
    """What was judged is what is connected to: the name is asked for once."""
    async with Host({"/a.png": PNG}).on("127.0.0.2") as judged, Host({}).on("127.0.0.1", judged.port) as other:
        names = Names(cdn_test=[["127.0.0.2"], ["127.0.0.1"]])
        async with client_of(Destinations("http://localhost:1", resolver=names)) as client:
            picture = await download(client, [f"http://cdn.test:{judged.port}/a.png"])
        assert picture.data == PNG
        assert (judged.connections, other.connections, names.asked) == (1, 0, ["cdn.test"])


@pytest.mark.parametrize(
    "target",
    [
        b"http://169.254.169.254/latest/meta-data",
        b"http://metadata.test/latest",
        b"http://10.0.0.1/a.png",
        b"https://user:word@cdn.test/a.png",
        b"ftp://cdn.test/a.png",
        b"https://cdn.test:6379/a.png",
    ],
)
async def test_a_redirect_is_judged_as_the_first_address_is(target: bytes) -> None:
    names = Names(metadata_test=[["169.254.169.254"]], cdn_test=[["10.0.0.2"]])
    pages = {"/a.png": target if target.startswith(b"http") else b"http:" + target}
    async with Host(pages).on("127.0.0.1") as host:
        async with client_of(Destinations(f"http://127.0.0.1:{host.port}", resolver=names)) as client:
            with pytest.raises(DownloadFailed) as caught:
                await download(client, [f"http://127.0.0.1:{host.port}/a.png"])
        assert not caught.value.retryable or target.startswith(b"ftp")


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "[::ffff:7f00:1]"])
async def test_other_spellings_of_loopback_lead_nowhere(host: str) -> None:
    names = Names()
    async with client_of(Destinations(PROVIDER, resolver=names)) as client:
        with pytest.raises(DownloadFailed):
            await download(client, [f"http://{host}/a.png"])


async def test_a_proxy_of_ours_may_be_anywhere_and_judges_names(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Host({"http://cdn.test/a.png": PNG}).on("127.0.0.1") as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        async with client_of(Destinations(PROVIDER, resolver=Names())) as client:
            assert (await download(client, ["http://cdn.test/a.png"])).data == PNG
            with pytest.raises(DownloadFailed):
                await download(client, ["http://169.254.169.254/a.png"])
        assert proxy.connections == 1
