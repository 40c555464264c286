"""The steps before a connection is open, without a socket."""

from __future__ import annotations

import ssl

import pytest

from reactor import ConnectionEvent, PrefaceError, TlsStream
from reactor.opening import Opening
from tests.tls_support import Certificates, peer_context

E = ConnectionEvent


class Greeting:
    """A preface: the word "hello" and a full stop."""

    what = "the greeting"

    def __init__(self) -> None:
        self.data = b""

    def feed(self, data: bytes) -> bytes | None:
        assert data, "nothing has come"
        self.data += data
        if not b"hello.".startswith(self.data[:6]):
            raise PrefaceError("the peer did not say hello")
        return None if len(self.data) < 6 else self.data[6:]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(certificates: Certificates) -> TlsStream:
    return TlsStream(peer_context(certificates, server_side=True), server_side=True)


@pytest.fixture
def client(certificates: Certificates) -> TlsStream:
    context = peer_context(certificates)
    return TlsStream(context, server_side=False, server_hostname="localhost")


def message(error: ConnectionResetError | None) -> str:
    assert error is not None
    return str(error)


# -- a preface -----------------------------------------------------------------------------------


def test_a_preface_is_the_peers_to_begin() -> None:
    opening = Opening(Greeting(), None)
    assert (opening.event, opening.over, opening.what) == (E.PREFACE, False, "the greeting")
    assert opening.feed(b"") is None
    assert opening.take() == b""
    assert repr(opening) == "<Opening waits for the greeting>"


@pytest.mark.parametrize("split", range(1, 11))
def test_it_gives_what_is_behind_the_preface(split: int) -> None:
    data = b"hello.data"
    opening = Opening(Greeting(), None)
    rest = opening.feed(data[:split])
    if split < 6:
        assert rest is None
        assert not opening.over
        rest = opening.feed(data[split:])
        assert rest == b"data"
    else:
        assert rest == data[6:split]
    assert (opening.event, opening.over) == (E.CONNECTED, True)
    assert repr(opening) == "<Opening over>"


def test_what_is_wrong_with_the_preface_is_raised() -> None:
    with pytest.raises(PrefaceError):
        Opening(Greeting(), None).feed(b"hallo.")


def test_who_leaves_before_the_first_byte_has_only_looked() -> None:
    opening = Opening(Greeting(), None)
    opening.feed(b"")
    assert opening.only_looked_at
    assert opening.broken_off() is None


def test_who_leaves_in_the_middle_of_the_preface_has_broken_it_off() -> None:
    opening = Opening(Greeting(), None)
    opening.feed(b"h")
    assert not opening.only_looked_at
    assert message(opening.broken_off()) == "the peer left before the end of the greeting"


# -- TLS -----------------------------------------------------------------------------------------


def shake_hands(one: Opening, other: Opening) -> None:
    """`one` begins."""
    assert one.feed(b"") is None
    for _ in range(10):
        for sender, receiver in ((one, other), (other, one)):
            data = sender.take()
            if data and not receiver.over:
                receiver.feed(data)


def test_a_client_begins_the_handshake_and_a_server_waits(
    client: TlsStream, server: TlsStream
) -> None:
    ours, theirs = Opening(None, server), Opening(None, client)
    assert ours.feed(b"") is None
    assert theirs.feed(b"") is None
    assert ours.take() == b""
    assert theirs.take()
    assert (ours.event, ours.over, ours.what) == (E.SECURE, False, "the TLS handshake")


def test_it_is_over_when_the_handshake_is(client: TlsStream, server: TlsStream) -> None:
    ours, theirs = Opening(None, server), Opening(None, client)
    shake_hands(theirs, ours)
    assert (ours.event, ours.over) == (E.SECURED, True)
    assert (theirs.event, theirs.over) == (E.SECURED, True)
    assert server.object.version() == client.object.version() is not None


@pytest.mark.parametrize("begun", [False, True])
def test_who_leaves_during_the_handshake_has_broken_it_off(
    begun: bool, client: TlsStream, server: TlsStream
) -> None:
    ours, theirs = Opening(None, server), Opening(None, client)
    theirs.feed(b"")
    ours.feed(theirs.take() if begun else b"")
    assert not ours.only_looked_at
    assert message(ours.broken_off()) == "the peer left during the TLS handshake"


def test_what_is_wrong_with_the_handshake_is_raised_and_answered(
    certificates: Certificates, server: TlsStream
) -> None:
    stranger = TlsStream(
        peer_context(certificates), server_side=False, server_hostname="elsewhere.test"
    )
    ours, theirs = Opening(None, stranger), Opening(None, server)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(ours, theirs)
    assert not ours.over
    alert = ours.take()
    assert alert
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        theirs.feed(alert)


# -- both ----------------------------------------------------------------------------------------


def test_the_handshake_comes_behind_the_preface(client: TlsStream, server: TlsStream) -> None:
    ours, theirs = Opening(Greeting(), server), Opening(None, client)
    theirs.feed(b"")
    hello = theirs.take()
    assert ours.event is E.PREFACE
    assert ours.feed(b"hello." + hello) == hello
    assert (ours.event, ours.over, ours.what) == (E.SECURE, False, "the TLS handshake")
    assert ours.take() == b""
    assert message(ours.broken_off()) == "the peer left during the TLS handshake"

    assert ours.feed(hello) is None
    answer = ours.take()
    assert answer
    theirs.feed(answer)
    assert theirs.over
    assert ours.feed(theirs.take()) == b""
    assert (ours.event, ours.over) == (E.SECURED, True)
