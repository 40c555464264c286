"""The live page, in a real browser."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import tao.monitor.sampler
from tao import MessageRegistry, Server
from tao.monitor import Monitor, monitor_on
from tests.browser import Browser, Tab, lacks_browser
from tests.support import LOCAL, Peer, Sample, as_bytes
from tests.tao.monitor.support import NOTHING, TOKEN, unused_address

MISSING = lacks_browser()
pytestmark = pytest.mark.skipif(
    MISSING is not None, reason=f"the live page is not tested in a browser: {MISSING}"
)

PHONE = {"width": 360, "height": 740, "phone": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests: it takes a second to come up."""
    with Browser() as browser:
        yield browser


@pytest.fixture(autouse=True)
def quick_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody shall wait for the next second; the page itself asks once in one."""
    monkeypatch.setattr(tao.monitor.sampler, "INTERVAL", 0.1)


def make_server() -> Server:
    """An echo."""
    registry = MessageRegistry()

    def on_echo(context: Any, _conn: Any) -> Sample:
        return Sample(1, context.message)

    registry.register(1, as_bytes, on_echo)
    return Server(registry=registry)


@contextmanager
def chatter(address: Any) -> Iterator[None]:
    """Messages, there and back, all the while."""
    ended = threading.Event()

    def talk() -> None:
        with Peer(address) as peer:
            while not ended.wait(0.002):
                peer.send_frame(1, b"hello")
                peer.receive_frame()

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def shown(browser: Browser, monitor: Monitor, **window: Any) -> Iterator[Tab]:
    """The page, which complains about nothing."""
    tab = browser.open(url_of(monitor), **window)
    try:
        yield tab
        assert tab.errors == []
    finally:
        tab.close()


def url_of(monitor: Monitor) -> str:
    """Of the page."""
    return f"http://127.0.0.1:{monitor.address[1]}/"


def chart(title: str) -> str:
    """JavaScript for the first card with that title."""
    titled = f"each => each.querySelector('h2')?.textContent === {title!r}"
    return f"[...document.querySelectorAll('.card')].find({titled})"


LIVE = "document.getElementById('state').dataset.state === 'live'"
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_charts_move_and_numbers_follow(browser: Browser) -> None:
    server = make_server()
    with server.running(LOCAL) as address, monitor_on(0) as monitor:
        monitor.add("echo", server.metrics)
        with shown(browser, monitor) as tab:
            tab.wait_for(LIVE)
            messages = chart("Messages")
            number = f"parseFloat({messages}.querySelector('b').textContent)"
            path = f"{messages}.querySelector('path.s0').getAttribute('d')"
            tab.wait_for(f"{number} === 0")
            with chatter(address):
                tab.wait_for(f"{number} > 5")
                first = tab.evaluate(path)
                assert re.fullmatch(r"M[\d.]+ [\d.]+(L[\d.]+ [\d.]+)+", first)
                tab.wait_for(f"{path} !== {first!r}")
                tab.wait_for(f"{chart('Connections')}.querySelector('b').textContent === '1'")
                tab.wait_for(f"{chart('Slowest handlers')}.innerText.includes('on_echo')")
                tab.wait_for(
                    f"{chart('Connections')}.querySelector('svg').ariaLabel.includes('at most 1')"
                )
                tab.wait_for(
                    "document.querySelector('#connections tbody tr').innerText.includes('OPEN')"
                )
            tab.wait_for(f"{number} === 0")
            tab.wait_for(f"{chart('Connections')}.querySelector('b').textContent === '0'")
            tab.wait_for("document.getElementById('connections').innerText === 'There is none.'")
        # And it has asked for nothing but numbers.
        assert {url.partition("?")[0] for url in tab.requests if not url.startswith("data:")} == {
            url_of(monitor),
            url_of(monitor) + "status",
        }


def lightness(tab: Tab, element: str, what: str) -> float:
    """Of a colour, from 0 to 255."""
    colour = tab.evaluate(f"getComputedStyle(document.querySelector('{element}')).{what}")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_as_light_or_dark_as_the_system(browser: Browser, dark: bool) -> None:
    with monitor_on(0) as monitor:
        monitor.add("other", lambda: NOTHING)
        with shown(browser, monitor, dark=dark) as tab:
            tab.wait_for(LIVE)
            back = lightness(tab, "body", "backgroundColor")
            assert back < 60 if dark else back > 200
            for element in ("body", ".values b", ".axis", "h2", "#state"):
                text = lightness(tab, element, "color")
                assert abs(text - back) > 100, element


def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser: Browser) -> None:
    server = make_server()
    with (
        server.running(LOCAL) as address,
        monitor_on(0) as monitor,
        chatter(address),
    ):
        monitor.add("a-name-that-is-rather-long-and-has-no-place-to-be-broken-" * 2, server.metrics)
        monitor.add("another", lambda: NOTHING)
        with shown(browser, monitor, **PHONE) as tab:
            tab.wait_for(LIVE)
            tab.wait_for("document.querySelector('#handlers td')")
            tab.wait_for("document.querySelector('#connections td')")
            assert tab.evaluate("document.documentElement.clientWidth") == 360
            assert tab.evaluate(SIDEWAYS) == 0
            # What is a column elsewhere is named at each number.
            label = (
                "getComputedStyle(document.querySelector('#connections td.n'), '::before').content"
            )
            assert "id" in tab.evaluate(label)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_what_comes_from_peers_is_text(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "<img src=x onerror=document.title=1><script>alert(1)"  # a path has no room for more
    server = make_server()
    monkeypatch.chdir(tmp_path)
    with (
        server.running(str(tmp_path / "server")) as path,
        socket.socket(socket.AF_UNIX) as peer,
        monitor_on(0) as monitor,
    ):
        peer.bind(evil)
        peer.connect(path)
        monitor.add(evil, server.metrics)
        monitor.add("other", lambda: NOTHING)
        with shown(browser, monitor) as tab:
            tab.wait_for(LIVE)
            tab.wait_for("document.querySelector('#connections td.wide')")
            assert (
                tab.evaluate("document.querySelector('#connections td.wide').textContent") == evil
            )
            assert tab.evaluate("document.querySelector('#servers button').firstChild.data") == evil
            assert tab.evaluate("document.images.length + document.scripts.length") == 1
            assert tab.evaluate("document.title") == f"{evil} · tao monitor"


@pytest.mark.parametrize("name", ["constructor", "__proto__"])
def test_a_name_that_javascript_has_for_something_else_is_one_like_others(
    browser: Browser, name: str
) -> None:
    server = make_server()
    with server.running(LOCAL) as address, chatter(address), monitor_on(0) as monitor:
        monitor.add("other", lambda: NOTHING)
        monitor.add(name, server.metrics)
        with shown(browser, monitor) as tab:
            tab.wait_for("document.querySelectorAll('#servers button').length === 2")
            tab.evaluate("document.querySelectorAll('#servers button')[1].click()")
            tab.wait_for("document.querySelectorAll('#connections tbody tr').length === 1")
            assert tab.evaluate("document.title") == f"{name} · tao monitor"


def test_a_restart_is_survived(browser: Browser) -> None:
    server = make_server()
    with server.running(LOCAL), ExitStack() as stack:
        first = stack.enter_context(monitor_on(0))
        first.add("echo", server.metrics)
        tab = browser.open(url_of(first))
        stack.callback(tab.close)
        tab.wait_for(LIVE)
        first.close()
        tab.wait_for("document.getElementById('state').innerText.startsWith('not reachable since')")
        assert tab.evaluate("document.body.className") == "stale"
        second = stack.enter_context(monitor_on(first.address[1]))
        second.add("again", server.metrics)
        second.add("other", lambda: NOTHING)
        tab.wait_for(LIVE)
        tab.wait_for("document.querySelector('#servers button').innerText.startsWith('again')")
        tab.wait_for(f"{chart('Connections')}.querySelector('path.s0').getAttribute('d')")


def test_servers_are_chosen_and_sorted_by_the_keyboard(browser: Browser) -> None:
    server = make_server()
    with server.running(LOCAL) as address, monitor_on(0) as monitor, ExitStack() as stack:
        monitor.add("other", lambda: NOTHING)
        monitor.add("echo", server.metrics)
        stack.enter_context(Peer(address))
        with shown(browser, monitor) as tab:
            tab.wait_for(LIVE)
            tab.wait_for("document.getElementById('connections').innerText.startsWith('Not known')")
            tab.evaluate("document.querySelector('#servers button').focus()")
            tab.press(["Tab", "Enter"])
            tab.wait_for("document.querySelector('#connections tbody tr')")
            pressed = (
                "[...document.querySelectorAll('#servers button')].map(each => each.ariaPressed)"
            )
            assert tab.evaluate(pressed) == ["false", "true"]
            assert tab.evaluate("document.activeElement.firstChild.data") == "echo"
            tab.press(["Tab"])
            assert tab.evaluate("document.activeElement.id") == "sort"
            # What a system's own list of choices does, which no key of the protocol's reaches.
            tab.evaluate(
                "document.activeElement.value = 'idle';"
                "document.activeElement.dispatchEvent(new Event('change'))"
            )
            tab.wait_for(
                "performance.getEntriesByType('resource').some(each => each.name.includes('sort=idle'))"
            )


def test_it_pauses(browser: Browser) -> None:
    with monitor_on(0) as monitor:
        monitor.add("other", lambda: NOTHING)
        with shown(browser, monitor) as tab:
            tab.wait_for(LIVE)
            tab.evaluate("document.getElementById('pause').focus()")
            tab.press([" "])
            tab.wait_for("document.getElementById('state').innerText === 'paused'")
            tab.wait_for("!asking")
            asked = tab.evaluate("performance.getEntriesByType('resource').length")
            tab.press([" "])
            tab.wait_for("document.getElementById('state').innerText === 'live'")
            tab.wait_for(f"performance.getEntriesByType('resource').length > {asked}")


def test_the_token_is_typed_once_and_kept_by_the_tab(browser: Browser) -> None:
    with monitor_on(0, token=TOKEN) as monitor:
        monitor.add("other", lambda: NOTHING)
        tab = browser.open(url_of(monitor))
        try:
            tab.wait_for("!document.getElementById('ask').hidden")
            assert tab.evaluate("document.getElementById('state').innerText") == "a token is needed"
            tab.evaluate("document.getElementById('token').focus()")
            tab.type("this is the wrong one")
            tab.press(["Enter"])
            tab.wait_for("document.getElementById('token').value === ''")
            tab.wait_for("!document.getElementById('ask').hidden")
            tab.type(TOKEN)
            tab.press(["Enter"])
            tab.wait_for(LIVE)
            assert tab.evaluate("document.getElementById('ask').hidden")
            tab.call("Page.reload")
            tab.wait_for("document.readyState === 'complete'")
            tab.wait_for(LIVE)
            assert not any(TOKEN in url for url in tab.requests)
            assert tab.evaluate("document.cookie") == ""
        finally:
            tab.close()


def test_the_token_may_come_in_the_fragment_and_does_not_stay_there(browser: Browser) -> None:
    with monitor_on(0, token=TOKEN) as monitor:
        monitor.add("other", lambda: NOTHING)
        tab = browser.open(f"{url_of(monitor)}#token={TOKEN}")
        try:
            tab.wait_for(LIVE)
            assert tab.evaluate("location.href") == url_of(monitor)
            assert tab.errors == []
            assert not any(TOKEN in url.partition("#")[0] for url in tab.requests)
        finally:
            tab.close()


def test_nobody_is_there(browser: Browser) -> None:
    """That the tests above would notice a page that does not come."""
    host, port = unused_address()
    tab = browser.open(f"http://{host}:{port}/")
    try:
        assert tab.evaluate("document.getElementById('state')") is None
    finally:
        tab.close()


def test_the_picture_is_one(browser: Browser, tmp_path: Path) -> None:
    """What the README's pictures are made with makes a picture."""
    with monitor_on(0) as monitor, shown(browser, monitor, width=400, height=300) as tab:
        tab.wait_for(LIVE)
        tab.save_picture(tmp_path / "page.png")
        data = (tmp_path / "page.png").read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert [int.from_bytes(data[at : at + 4], "big") for at in (16, 20)] == [400, 300]
