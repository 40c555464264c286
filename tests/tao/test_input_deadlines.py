"""Peers that take their time: what must come by when, however the bytes trickle in.

Time is the simulation's: hours of it take none.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reactor.testing import SimulatedSocket
from tao import (
    ClientConn,
    CloseCause,
    CloseReason,
    ConnectionOptions,
    Context,
    LineCodec,
    MessageRegistry,
    Phase,
    Refusal,
    Server,
    ServerConn,
    WriteCloser,
    load_server_tls,
)
from tao.testing import Faults, Simulation
from tests.support import LOCAL, Peer, Sample, as_bytes, frame, reset
from tests.tao.manual import ManualLoop
from tests.tls_support import Certificates

ECHO, ORDER, SLOW = 1, 2, 3


class Watched:
    """A simulation with a server in it, and how its connections have ended."""

    def __init__(self, simulation: Simulation, **arguments: Any) -> None:
        self.simulation = simulation
        self.reasons: list[tuple[float, CloseReason]] = []
        registry = MessageRegistry()
        registry.register(ECHO, as_bytes, lambda context, conn: Sample(ECHO, context.message))
        registry.register(ORDER, as_bytes, phases=Phase.AFTER, refusal=Refusal.SKIP)
        registry.register(SLOW, as_bytes, self._slow)
        arguments.setdefault("registry", registry)
        self.server: Server = simulation.server(on_close=self._on_close, **arguments)

    def _slow(self, context: Context[bytes], conn: WriteCloser) -> None:
        self.simulation.sleep(float(context.message))

    def _on_close(self, _conn: ServerConn, reason: CloseReason) -> None:
        self.reasons.append((self.simulation.time, reason))

    def trickle(self, peer: SimulatedSocket, data: bytes, pause: float) -> float:
        """Send it byte by byte until it has ended; how long it could."""
        begun = self.simulation.time
        for index in range(len(data)):
            if self.reasons:
                break
            try:
                peer.sendall(data[index : index + 1])
            except OSError:
                break
            self.simulation.sleep(pause)
        self.simulation.wait(lambda: self.reasons)
        return self.reasons[0][0] - begun

    def check_expired(self, text: str) -> None:
        """It has ended as such a connection does."""
        [(_, reason)] = self.reasons
        assert reason.cause is CloseCause.EXPIRED
        assert isinstance(reason.error, TimeoutError)
        assert text in str(reason.error)


def check_received(peer: SimulatedSocket, data: bytes) -> None:
    """That it is what comes next, in however many pieces."""
    received = b""
    while len(received) < len(data):
        chunk = peer.recv(len(data) - len(received))
        assert chunk, received
        received += chunk
    assert received == data


@contextmanager
def watched(faults: Faults | None = None, **arguments: Any) -> Iterator[Watched]:
    """For one server."""
    with Simulation(1, faults) as simulation:
        yield Watched(simulation, **arguments)


@pytest.mark.parametrize("pause", [0.5, 3.0, 9.0])
@pytest.mark.parametrize(
    "arguments", [{}, {"codec": LineCodec()}], ids=["with a header", "without"]
)
def test_a_frame_must_be_whole_in_time_whatever_comes(
    pause: float, arguments: dict[str, Any]
) -> None:
    with (
        watched(frame_timeout=10.0, **arguments) as seen,
        seen.simulation.peer(seen.server) as peer,
    ):
        lasted = seen.trickle(peer, frame(ECHO, b"\x01" * 200), pause)
        assert 10.0 <= lasted <= 12.5  # and the linger time, at the most
        seen.check_expired("not whole 10 s after it began")


def test_each_frame_has_its_own_time() -> None:
    with watched(frame_timeout=10.0) as seen, seen.simulation.peer(seen.server) as peer:
        for number in range(20):  # the beginning of one comes with the end of the other
            piece = frame(ECHO, b"%02d" % number)
            peer.sendall(piece[:5] if number == 0 else b"")
            seen.simulation.sleep(6.0)
            peer.sendall(piece[5:] + frame(ECHO, b"%02d" % (number + 1))[:5])
            check_received(peer, piece)
        for _ in range(5):  # and whole ones in between
            seen.simulation.sleep(6.0)
            peer.sendall(frame(ECHO, b"20")[5:])
            check_received(peer, frame(ECHO, b"20"))
            seen.simulation.sleep(60.0)
            peer.sendall(frame(ECHO))
            check_received(peer, frame(ECHO))
            peer.sendall(frame(ECHO, b"20")[:5])
        assert not seen.reasons
        assert seen.trickle(peer, b"", 0.0) <= 12.5
        seen.check_expired("not whole")


def test_what_is_thrown_away_must_come_in_time_too() -> None:
    with watched(frame_timeout=10.0) as seen, seen.simulation.peer(seen.server) as peer:
        lasted = seen.trickle(peer, struct.pack("<iI", ORDER, 1000) + bytes(100), 0.5)
        assert 10.0 <= lasted <= 12.5
        seen.check_expired("not whole")


def test_without_a_limit_it_may_take_as_long_as_it_likes() -> None:
    with watched(frame_timeout=None) as seen, seen.simulation.peer(seen.server) as peer:
        for byte in frame(ECHO, b"slow"):
            seen.simulation.sleep(3600.0)
            peer.sendall(bytes([byte]))
        check_received(peer, frame(ECHO, b"slow"))


def test_a_minute_unless_it_is_said_otherwise() -> None:
    with watched() as seen, seen.simulation.peer(seen.server) as peer:
        assert 60.0 <= seen.trickle(peer, frame(ECHO, bytes(100)), 7.0) <= 62.5
        seen.check_expired("not whole 60 s")


def test_time_in_which_nothing_is_read_does_not_count() -> None:
    """Behind a message that takes its time, with as many waiting as may, the rest cannot come."""
    with (
        watched(frame_timeout=10.0, buffer_size=1) as seen,
        seen.simulation.peer(seen.server) as peer,
    ):
        slow = frame(SLOW, b"100") * 2
        peer.sendall(slow + frame(ECHO, b"x")[:-1])
        seen.simulation.sleep(190.0)
        [conn] = seen.server.connections()
        conn.pause_reading()
        seen.simulation.sleep(50.0)
        conn.resume_reading()
        seen.simulation.sleep(4.0)
        conn.pause_reading()
        seen.simulation.sleep(100.0)
        conn.resume_reading()
        seen.simulation.sleep(3.0)
        peer.sendall(b"x")
        check_received(peer, frame(ECHO, b"x"))
        # Pauses do not start it anew, either.
        peer.sendall(frame(ECHO, b"x")[:-1])
        begun = seen.simulation.time
        while not seen.reasons and seen.simulation.time < begun + 100.0:
            seen.simulation.sleep(2.0)
            conn.pause_reading()
            seen.simulation.sleep(2.0)
            conn.resume_reading()
        assert 20.0 <= seen.simulation.time - begun <= 26.0
        seen.check_expired("not whole")


def test_frames_that_wait_for_room_are_not_late() -> None:
    """A frame in pieces has been completed, and others that are whole wait when its time would be over."""
    with (
        watched(Faults.none(), frame_timeout=10.0, buffer_size=1) as seen,
        seen.simulation.peer(seen.server) as peer,
    ):
        peer.sendall(frame(ECHO)[:1])
        seen.simulation.sleep(9.5)
        peer.sendall(frame(ECHO)[1:] + frame(SLOW, b"4.65") * 2)
        seen.simulation.sleep(5.2)  # it reads again since the first of them has ended
        peer.sendall(frame(SLOW, b"1") * 3 + frame(ECHO))
        check_received(peer, frame(ECHO) * 2)
        assert not seen.reasons


def test_a_frame_whose_turn_comes_after_its_time_has_a_deadline_then() -> None:
    """Whether it is let in hangs on the message before it, which takes longer than a frame may."""
    with (
        watched(Faults.none(), frame_timeout=10.0) as seen,
        seen.simulation.peer(seen.server) as peer,
    ):
        peer.sendall(frame(SLOW, b"15") + struct.pack("<iI", ORDER, 1000) + bytes(10))
        seen.simulation.sleep(14.0)
        assert not seen.reasons
        seen.simulation.sleep(26.0)
        seen.check_expired("not whole")


def test_no_deadline_is_left_over_by_who_is_lost_while_it_is_answered() -> None:
    with ManualLoop() as loop:
        registry = MessageRegistry()

        def answer(_context: Context[bytes], _conn: WriteCloser) -> Sample:
            reset(peer.sock)  # so that the reply cannot be sent
            return Sample(ECHO)

        registry.register(ECHO, as_bytes, answer, inline=True)
        reasons: list[CloseReason] = []
        server = Server(
            registry=registry,
            reactor=loop.reactor,
            on_close=lambda _conn, reason: reasons.append(reason),
        )
        loop.add(server)
        with Peer(server.listen(LOCAL)) as peer:
            peer.send(frame(ECHO) + frame(ECHO)[:5])
            loop.until(lambda: reasons)
            assert isinstance(reasons[0].error, ConnectionError)
            assert reasons[0].undecoded == 5
            loop.advance(1.0)  # the worker pool looks once more
            assert loop.reactor.statistics().timeouts_waiting == 0


def test_the_first_message_must_come_in_time() -> None:
    with watched(first_message_timeout=5.0) as seen, seen.simulation.peer(seen.server) as peer:
        assert 5.0 <= seen.trickle(peer, frame(ECHO, bytes(100)), 0.5) <= 7.5
        seen.check_expired("no message came in the first 5 s")


def test_who_has_sent_one_message_may_be_silent() -> None:
    with watched(first_message_timeout=5.0) as seen, seen.simulation.peer(seen.server) as peer:
        seen.simulation.sleep(4.0)
        peer.sendall(frame(ECHO))
        check_received(peer, frame(ECHO))
        seen.simulation.sleep(3600.0)
        peer.sendall(frame(ECHO))
        check_received(peer, frame(ECHO))


def test_who_only_listens_may_do_so() -> None:
    with watched() as seen, seen.simulation.peer(seen.server) as peer:
        seen.simulation.sleep(86_400.0)
        assert seen.server.broadcast(Sample(9)).sent == 1
        check_received(peer, frame(9))


def test_a_client_has_a_limit_for_frames_too() -> None:
    reasons: list[CloseReason] = []
    with Simulation(1) as simulation, simulation.open_socket(socket.AF_INET) as listener:
        listener.bind(("10.0.0.9", 0))
        listener.listen()
        client = ClientConn(
            listener.getsockname(),
            registry=MessageRegistry(),
            frame_timeout=10.0,
            on_close=lambda _conn, reason: reasons.append(reason),
            reactor=simulation.reactor(),
            executor=simulation.executor(1),
        )
        client.start()
        sock, _ = listener.accept()
        with sock:
            begun = simulation.time
            sock.sendall(b"\x01")
            simulation.wait(lambda: reasons)
            assert 10.0 <= simulation.time - begun <= 12.5
            assert reasons[0].cause is CloseCause.EXPIRED
        client.wait_closed(60.0)


@pytest.mark.parametrize("name", ["frame_timeout", "first_message_timeout"])
@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_times_that_make_no_sense(name: str, seconds: float) -> None:
    arguments: dict[str, Any] = {name: seconds}
    with pytest.raises(ValueError, match=name):
        Server(**arguments)


# -- those that there were before: bytes do not put them off, either -----------------------------


def test_a_handshake_in_trickles(tmp_path: Path) -> None:
    tls = load_server_tls(Certificates(tmp_path).server_file)
    ended: list[float] = []
    with Simulation(1) as simulation:
        server = simulation.server(
            registry=MessageRegistry(),
            tls=tls,
            options=ConnectionOptions(handshake_timeout=10.0),
            on_error=lambda _conn, error: ended.append(simulation.time),
        )
        with simulation.peer(server) as peer:
            begun = simulation.time
            # The beginning of a ClientHello in a record of 512 bytes.
            for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100):
                if ended:
                    break
                peer.sendall(bytes([byte]))
                simulation.sleep(0.5)
            assert 9.9 <= ended[0] - begun <= 10.5  # it began before the peer knew of it


def test_a_drain_to_a_peer_that_reads_in_trickles() -> None:
    options = ConnectionOptions(drain_timeout=10.0)
    with (
        watched(Faults(buffer_size=4096), options=options) as seen,
        seen.simulation.peer(seen.server) as peer,
    ):
        peer.sendall(frame(ECHO, bytes(1 << 20)))
        seen.simulation.wait(lambda: seen.server.connections()[0].pending)
        begun = seen.simulation.time
        seen.server.connections()[0].close()
        while not seen.reasons and seen.simulation.time < begun + 100.0:
            peer.recv(100)
            seen.simulation.sleep(0.5)
        [(ended, reason)] = seen.reasons
        assert 10.0 <= ended - begun <= 10.5
        assert isinstance(reason.error, TimeoutError)
        assert reason.unsent > 0


def test_the_wait_for_the_peers_fin_while_it_goes_on_sending() -> None:
    options = ConnectionOptions(linger_timeout=10.0)
    with watched(options=options) as seen, seen.simulation.peer(seen.server) as peer:
        seen.simulation.wait(seen.server.connections)
        seen.server.connections()[0].close()
        lasted = seen.trickle(peer, bytes(100), 0.5)
        assert 10.0 <= lasted <= 10.5
        [(_, reason)] = seen.reasons
        assert (reason.cause, reason.error) == (CloseCause.CLOSED, None)
