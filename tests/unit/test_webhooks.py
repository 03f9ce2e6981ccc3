"""Addresses, URLs, signatures and the times of attempts of webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
from itertools import accumulate

import pytest

from api.webhooks.addresses import Reach, literal_address, reach_of
from api.webhooks.transport import retry_after_of, target_of
from jobs.webhooks.schedule import DELAYS_S, GIVE_UP_S, next_delay_s
from jobs.webhooks.signing import hint_of, new_secret, signed_headers

PUBLIC = "8.8.8.8 1.1.1.1 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1"
PRIVATE = """
    127.0.0.1 127.1.2.3 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 ::1 fd00::1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::
    2002:a00:1::1
"""
FORBIDDEN = """
    0.0.0.0 0.1.2.3 169.254.169.254 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
    192.0.2.1 198.18.0.1 :: ::127.0.0.1 ::8.8.8.8 fe80::1 fe80::1%eth0 ff02::1 fec0::1
    ::ffff:0.0.0.0 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 64:ff9b:1::a9fe:a9fe
    2002:a9fe:a9fe:: 2001:0:1:2:3:4:5:6 2001:db8::1 localhost 127.1 2130706433
"""


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        *((address, Reach.PUBLIC) for address in PUBLIC.split()),
        *((address, Reach.PRIVATE) for address in PRIVATE.split()),
        *((address, Reach.FORBIDDEN) for address in FORBIDDEN.split()),
    ],
)
def test_an_address_is_classified_in_every_disguise(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.1"]
)
def test_a_number_as_host_is_the_address_that_it_stands_for(host: str) -> None:
    address = literal_address(host)
    assert address is not None
    assert reach_of(address) is Reach.PRIVATE


def test_a_name_is_no_address() -> None:
    assert literal_address("example.com") is None
    assert literal_address("a" * 300 + ".com") is None


@pytest.mark.parametrize(
    "url",
    [
        "example.com",
        "gopher://example.com/",
        "file:///etc/passwd",
        "http://",
        "http://:80/",
        "http://user@example.com/",
        "http://example.com:0/",
        "http://example.com:70000/",
        "http://example.com:a/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://example.com\\@127.0.0.1/",
        "http://exämple.com/",
        "http://example.com/a b",
        "http://example.com/\r\nHost: x",
        "http://" + "a" * 254 + "/",
    ],
)
def test_a_url_that_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        target_of(url)


def test_a_url_is_taken_apart() -> None:
    target = target_of("https://[2606:4700::1111]:8443/a/b?c=d#e")
    assert (target.is_tls, target.host, target.port) == (True, "2606:4700::1111", 8443)
    assert (target.path, target.host_header) == ("/a/b?c=d", "[2606:4700::1111]:8443")
    assert target_of("http://example.com").port == 80
    assert target_of("http://example.com").path == "/"


def test_the_attempts_are_those_of_standard_webhooks_up_to_three_days() -> None:
    delays = [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    assert list(DELAYS_S) == delays
    found: list[float] = []
    elapsed = 0.0
    while (delay := next_delay_s(len(found) + 1, elapsed, None)) is not None:
        found.append(delay)
        elapsed += delay
    assert found[:-1] == delays[:-1]
    assert elapsed == GIVE_UP_S < list(accumulate(delays))[-1]


def test_a_receiver_delays_and_never_hastens() -> None:
    assert next_delay_s(1, 0, 900) == 900
    assert next_delay_s(3, 0, 1) == 1800
    assert next_delay_s(1, GIVE_UP_S - 10, 900) == 10
    assert next_delay_s(1, GIVE_UP_S, 900) is None


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after_of("120", 0) == 120
    assert retry_after_of("Thu, 01 Jan 1970 00:01:40 GMT", 40) == 60
    assert retry_after_of("Thu, 01 Jan 1970 00:00:00 GMT", 40) == 0
    assert retry_after_of("9" * 400, 0) == GIVE_UP_S
    for value in (None, "", "soon", "-5", "1.5", "\xb2"):
        assert retry_after_of(value, 0) is None


def test_each_secret_signs() -> None:
    old, new = new_secret(), new_secret()
    headers = signed_headers("evt_1", 17, b"{}", [new, old])
    for secret, signature in zip((new, old), headers["webhook-signature"].split(), strict=True):
        key = base64.b64decode(secret.removeprefix("whsec_"))
        expected = hmac.new(key, b"evt_1.17.{}", hashlib.sha256).digest()
        assert signature == "v1," + base64.b64encode(expected).decode()
    assert hint_of(new).endswith(new[-4:])
    assert len(hint_of(new)) < 16
