"""tao.monitor.access: who may ask, on real sockets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tao.monitor import Monitor, monitor_on
from tests.support import Peer
from tests.tao.monitor.support import TOKEN, ask

NUMBERS = ["/status", "/debug/vars", "/metrics"]


@pytest.fixture
def guarded() -> Iterator[Monitor]:
    """With a token."""
    with monitor_on(0, token=TOKEN) as monitor:
        yield monitor


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    """Without one."""
    with monitor_on(0) as monitor:
        yield monitor


# -- the token -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NUMBERS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN.upper()}"},
        {"Authorization": f"Bearer {TOKEN} {TOKEN}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \xff\xfe"},
        {"Cookie": f"token={TOKEN}"},
        {"X-Token": TOKEN},
    ],
    ids=str,
)
def test_numbers_need_the_token(guarded: Monitor, path: str, headers: dict[str, str]) -> None:
    answer = ask(guarded, path, headers)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tao monitor"'
    assert "cmdline" not in answer.text
    assert TOKEN not in answer.text


@pytest.mark.parametrize("path", NUMBERS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_whoever_brings_it_sees_them(guarded: Monitor, path: str, scheme: str) -> None:
    assert ask(guarded, path, {"Authorization": f"{scheme} {TOKEN}"}).status in (200, 501)


def test_a_token_in_the_url_is_not_taken(guarded: Monitor) -> None:
    """URLs are kept in logs and histories: nobody is to get into the habit."""
    assert ask(guarded, f"/status?token={TOKEN}").status == 401


def test_two_authorizations_are_none(guarded: Monitor) -> None:
    line = f"Authorization: Bearer {TOKEN}\r\n".encode()
    with Peer(guarded.address) as peer:
        peer.send(
            b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + 2 * line + b"\r\n"
        )
        assert peer.receive_to_end().startswith(b"HTTP/1.1 401 ")


def test_the_page_itself_is_for_all(guarded: Monitor) -> None:
    """There is no number in it: its script asks for those."""
    assert ask(guarded, "/").status == 200


def test_with_a_token_the_name_does_not_matter(guarded: Monitor) -> None:
    headers = {"Host": "monitor.example:6060", "Authorization": f"Bearer {TOKEN}"}
    assert ask(guarded, "/status", headers).status == 200


def test_the_token_is_nowhere_to_be_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with monitor_on(0, token=TOKEN) as monitor:
        ask(monitor, "/status", {"Authorization": f"Bearer {TOKEN}"})
        ask(monitor, f"/status?token={TOKEN}")
        ask(monitor, f"/nowhere?token={TOKEN}")
        assert TOKEN not in repr(monitor)
    assert "/nowhere" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    "token", ["", "short", "x" * 15, "with a space in between", "späß" * 5, "line\n" * 4]
)
def test_a_token_that_will_not_do(token: str) -> None:
    with pytest.raises(ValueError, match=r"16 or more characters.*token_urlsafe") as caught:
        monitor_on(0, token=token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize("token", [b"x" * 20, 1234567890123456])
def test_a_token_is_a_text(token: Any) -> None:
    with pytest.raises(TypeError, match="a token is a text") as caught:
        monitor_on(0, token=token)
    assert str(token) not in str(caught.value)


def test_what_cannot_be_seen_without_a_token_is_not_listened_on() -> None:
    with pytest.raises(ValueError, match="needs a token"):
        monitor_on(0, "0.0.0.0")


# -- the Host header -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:6060",
        "127.9.9.9:80",
        "localhost",
        "LOCALHOST:6060",
        "tao.localhost:1",
        "[::1]:6060",
        "[::1]",
    ],
)
@pytest.mark.parametrize("path", ["/", "/status"])
def test_a_name_of_this_machine(monitor: Monitor, path: str, host: str) -> None:
    assert ask(monitor, path, {"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:6060",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "evillocalhost",
        "192.168.1.1:6060",
        "[::2]:6060",
        "[",
        "0.0.0.0",
    ],
)
@pytest.mark.parametrize("path", ["/", "/status", "/debug/vars", "/metrics", "/elsewhere"])
def test_a_name_that_was_made_to_lead_here(monitor: Monitor, path: str, host: str) -> None:
    """DNS rebinding: for a browser, the page of that name and this monitor would be one site."""
    answer = ask(monitor, path, {"Host": host})
    assert answer.status == 421
    assert "localhost" in answer.text


def test_a_target_with_a_host_says_it_too(monitor: Monitor) -> None:
    assert ask(monitor, "http://evil.example/status", {"Host": "localhost"}).status == 421
    assert ask(monitor, "http://localhost/status", {"Host": "localhost"}).status == 200


@pytest.mark.parametrize("hosts", [[], ["localhost", "localhost"], ["localhost", "evil.example"]])
def test_a_request_has_one_host(monitor: Monitor, hosts: list[str]) -> None:
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    with Peer(monitor.address) as peer:
        peer.send(f"GET /status HTTP/1.1\r\nConnection: close\r\n{lines}\r\n".encode())
        assert peer.receive_to_end().startswith(b"HTTP/1.1 400 ")


# -- what browsers are told ----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/status", "/elsewhere"])
def test_other_sites_get_nothing_out_of_an_answer(monitor: Monitor, path: str) -> None:
    headers = ask(monitor, path, {"Origin": "https://evil.example"}).headers
    assert not any(name.startswith("Access-Control") for name in headers)
    assert "Set-Cookie" not in headers
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"


def test_the_page_may_run_and_fetch_its_own_alone(monitor: Monitor) -> None:
    answer = ask(monitor, "/")
    policy = dict(
        part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-")
    assert policy["style-src"].startswith("'sha256-")
    assert "unsafe" not in str(policy)
    assert "http" not in str(policy)
    # Nothing from elsewhere: the only addresses are names of XML, and none is fetched.
    addresses = {each.split('"')[0].split("'")[0] for each in answer.text.split("http://")[1:]}
    assert addresses == {"www.w3.org/2000/svg"}
    assert "https://" not in answer.text
