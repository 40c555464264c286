"""Errors say what is wrong, with the value that is, and what to do about it."""

from __future__ import annotations

import ast
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import reactor
import tao
from tests.examples.support import ROOT
from tests.support import LOCAL, as_bytes
from tests.tls_support import Certificates

MISUSE = {"ValueError", "TypeError", "KeyError", "LookupError"}
"""Raised for what a caller has passed."""

OWN = {
    *(name for name in tao.__all__ if name.endswith("Error")),
    *(name for name in reactor.__all__ if name.endswith("Error")),
}

WAY_OUT = re.compile(
    r"\b(must|needs?|call|catch|choose|comes? first|detach|escape|expect|leave|make|modify|pass|put|"
    r"raise|register|remove|return|see|stop|unregister|use|wait|is an?|is the)\b"
    r"|\bis\b.* not \{\}"
)
"""What is expected, or what to do."""

# What the framework says of a peer, or of the network, which the reader of a log can do nothing about.
OF_THE_PEER = re.compile(
    r"the peer|read too slowly|is closing or closed|ended before a reply|took too long|nothing came|"
    r"not connected to|nothing was queued$"
)


@dataclass(frozen=True)
class Raised:
    """A `raise` with a text, or an error of the packages' own that is made to be raised."""

    place: str
    error: str
    text: str
    """The values in it as `{}`."""
    has_value: bool


def text_of(node: ast.expr) -> tuple[str, bool]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value, False
    if isinstance(node, ast.JoinedStr):
        parts = [piece.value if isinstance(piece, ast.Constant) else "{}" for piece in node.values]
        return "".join(map(str, parts)), True
    return "", False


def raised_in(path: Path) -> list[Raised]:
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            if name in MISUSE | OWN and node.args:
                text, has_value = text_of(node.args[0])
                if text:
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    found.append(Raised(place, name, text, has_value))
    return found


RAISED = [
    raised
    for package in ("reactor", "tao")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "examples" not in path.parts
    for raised in raised_in(path)
]


def identify(raised: Raised) -> str:
    return raised.place


@pytest.mark.parametrize("raised", RAISED, ids=identify)
def test_a_text_is_a_sentence(raised: Raised) -> None:
    assert len(raised.text.split()) >= 5, raised
    assert raised.text[-1] not in ".!", "it is followed by what the caller adds"
    assert "\n" not in raised.text
    assert not raised.text.startswith(("Error", "Invalid", "Illegal", "Bad")), raised


@pytest.mark.parametrize(
    "raised", [raised for raised in RAISED if raised.error in MISUSE], ids=identify
)
def test_misuse_is_told_with_the_value(raised: Raised) -> None:
    """Unless there is none, or the text says that something is missing."""
    missing = re.search(
        r"needs|must|would|one more|came to a client|cannot be sent|pass an", raised.text
    )
    assert raised.has_value or missing, raised


@pytest.mark.parametrize("raised", RAISED, ids=identify)
def test_a_text_shows_a_way_out(raised: Raised) -> None:
    assert WAY_OUT.search(raised.text) or OF_THE_PEER.search(raised.text), raised


def test_the_search_finds_what_is_raised() -> None:
    assert len(RAISED) > 80
    assert {"ValueError", "TypeError", "TaoError", "ReactorClosedError"} <= {
        raised.error for raised in RAISED
    }


# -- what a newcomer meets first -----------------------------------------------------------------


def listening() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address: tuple[str, int] = taken.getsockname()
    return address


def connect_to_nobody() -> None:
    with tao.ClientConn(listening(), registry=tao.MessageRegistry()):
        pass


def wait_for_what_was_not_started() -> None:
    tao.ClientConn(("127.0.0.1", 1), registry=tao.MessageRegistry()).wait_connected()


def register_twice() -> None:
    registry = tao.MessageRegistry()
    registry.register(1, as_bytes)
    registry.register(1, as_bytes)


def serve_before_listening() -> None:
    tao.Server(registry=tao.MessageRegistry()).serve_forever()


def start_twice() -> None:
    server = tao.Server(registry=tao.MessageRegistry())
    with (
        server.running(LOCAL) as address,
        tao.ClientConn(address, registry=tao.MessageRegistry()) as client,
    ):
        client.start()


def pass_a_result_for_a_callback() -> None:
    loop = reactor.Reactor()
    try:
        loop.call_soon(print())  # type: ignore[arg-type]
    finally:
        loop.close()


def use_a_closed_loop() -> None:
    loop = reactor.Reactor()
    loop.close()
    loop.call_soon(print)


def run_within() -> None:
    loop = reactor.Reactor()
    errors: list[BaseException] = []

    def again() -> None:
        try:
            loop.run_once(0)
        except reactor.ReentrancyError as error:
            errors.append(error)

    loop.call_soon(again)
    loop.run_once(0)
    loop.close()
    raise errors[0]


def decorate_for_what_cannot_be_read() -> None:
    tao.MessageRegistry().handler(int)(print)  # type: ignore[arg-type]


def look_for_nobody() -> None:
    tao.Server(registry=tao.MessageRegistry()).connection(7)


def renew_what_was_never_there() -> None:
    server = tao.Server(registry=tao.MessageRegistry())
    with server.running(("127.0.0.1", 0)):
        server.set_tls(tao.load_client_tls(verify=False))


FIRST_MISTAKES: list[tuple[Callable[[], object], type[BaseException], str]] = [
    (connect_to_nobody, tao.ConnectionClosedError, "does a server listen there?"),
    (wait_for_what_was_not_started, tao.TaoError, r"call start\(\) first"),
    (register_twice, ValueError, "registered already; unregister it first, or .* another number"),
    (serve_before_listening, tao.TaoError, r"call listen\(address\) first"),
    (start_twice, tao.TaoError, "make a new one"),
    (pass_a_result_for_a_callback, TypeError, "without parentheses"),
    (use_a_closed_loop, reactor.ReactorClosedError, "make a new one"),
    (run_within, reactor.ReentrancyError, "call_soon or call_later"),
    (decorate_for_what_cannot_be_read, TypeError, "class attribute message_number and"),
    (look_for_nobody, tao.NotRegisteredError, "no connection 7"),
    (renew_what_was_never_there, tao.TaoError, "pass tls="),
    (lambda: tao.Server(worker_size=0), ValueError, "at least 1, not 0"),
    (lambda: tao.Server(max_connections="9"), TypeError, "not '9'"),  # type: ignore[arg-type]
    (lambda: tao.ClientConn(12345), TypeError, r"\('127.0.0.1', 12345\)"),  # type: ignore[arg-type]
    (lambda: tao.Heartbeat(interval=0), ValueError, "positive number of seconds, not 0"),
    (lambda: tao.MessageRegistry().unregister(5), KeyError, "number 5 is not registered"),
    (lambda: tao.load_server_tls("no such file.pem"), FileNotFoundError, "no such file.pem"),
]


@pytest.mark.parametrize(
    ("mistake", "error", "text"),
    FIRST_MISTAKES,
    ids=[text for _, _, text in FIRST_MISTAKES],
)
def test_a_first_mistake_is_explained(
    mistake: Callable[[], object], error: type[BaseException], text: str
) -> None:
    with pytest.raises(error) as caught:
        mistake()
    assert re.search(text, str(caught.value)), str(caught.value)


def test_the_wrong_key_is_named(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    _, certificate = certificates.key_and_certificate("localhost")
    (tmp_path / "other").mkdir()
    other, _ = Certificates(tmp_path / "other").key_and_certificate("localhost")
    with pytest.raises(OSError, match=f"(?s){certificate}.*{other}.*must be the certificate's"):
        tao.load_server_tls(certificate, other)
