"""Many who connect at once, and what the system runs out of: over real sockets."""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tao import Backoff, ClientConn, CloseCause, ConnectionClosedError
from tests.faults.support import INLINE, POOLED, Watched, check_alive, serving
from tests.support import (
    DEADLINE,
    LOCAL,
    Calls,
    Peer,
    descriptors,
    frame,
    no_descriptors_left,
    wait_until,
)

MANY = 10_000
"""Connects at once, if the system lets this process have so many descriptors."""

SPARE = 200
"""Descriptors that a test leaves for everything but its connects."""


@contextlib.contextmanager
def as_many_descriptors_as_may_be() -> Iterator[int]:
    """How many this process may have while the block lasts: the soft limit becomes the hard one."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY + SPARE if hard == resource.RLIM_INFINITY else hard
    raised = max(soft, min(wanted, MANY + SPARE))
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    try:
        yield raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_connects_at_once_against_a_small_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As many as fit are served; every other one is told so by an end, and none of them hangs."""
    limit = 20
    caplog.set_level(logging.ERROR)  # each refusal is a warning: ten thousand are not kept
    watched = Watched(max_connections=limit, backlog=4096)
    with (
        as_many_descriptors_as_may_be() as room,
        watched.server.running(LOCAL) as address,
        ExitStack() as stack,
    ):
        count = min(MANY, room - len(descriptors()) - SPARE)
        socks = []
        with selectors.DefaultSelector() as waiting:
            for _ in range(count):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                assert sock.connect_ex(address) in (0, errno.EINPROGRESS)
                socks.append(sock)
                waiting.register(sock, selectors.EVENT_READ)
            # The end of one that was refused is readable; nobody else has anything to read.
            ended: set[int] = set()
            while len(ended) < count - limit:
                ready = waiting.select(DEADLINE)
                assert ready, f"{len(ended)} of {count} were told, and no more"
                for key, _ in ready:
                    waiting.unregister(key.fileobj)
                    ended.add(key.fd)
        served = [sock for sock in socks if sock.fileno() not in ended]
        assert len(served) == limit
        assert wait_until(lambda: watched.server.metrics().connections_refused == count - limit)
        assert watched.server.connection_count == limit
        for sock in served:
            sock.settimeout(DEADLINE)
            sock.sendall(frame(POOLED, b"in"))
            assert sock.recv(10, socket.MSG_WAITALL) == frame(POOLED, b"in")
        # There is room again for whoever comes when one of them has left.
        served[0].close()
        assert wait_until(lambda: watched.server.connection_count == limit - 1)
        with Peer(address) as newcomer:
            check_alive(newcomer)
        assert len(watched.errors) == 0


def test_stop_during_a_storm_of_connects() -> None:
    """Whoever is cut off is cut off by an end, and the stop is in good order and in time."""
    watched = Watched()
    outcomes: Calls[bytes] = Calls()
    over = threading.Event()

    def storm(address: Any) -> None:
        while not over.is_set():
            try:
                with Peer(address) as peer:
                    peer.send_frame(INLINE if len(outcomes) % 2 else POOLED, b"one")
                    peer.finish_sending()
                    outcomes.add(peer.receive_to_end())
            except OSError:
                outcomes.add(
                    b""
                )  # refused, or reset in the backlog: ENOTCONN for who would shut it down

    threads: list[threading.Thread] = []
    with watched.server.running(LOCAL) as address:
        threads += [threading.Thread(target=storm, args=(address,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        outcomes.wait(100)  # it is in full swing
        report = watched.server.stop(grace=DEADLINE)
        at_stop = len(outcomes)
        outcomes.wait(at_stop + 50)  # and goes on after it
        over.set()
        for thread in threads:
            thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)
    assert (report.finished, report.aborted) == (True, 0)
    assert set(outcomes.items) <= {b"", frame(POOLED, b"one")}
    assert watched.server.connection_count == 0
    reasons = [reason for _, reason in watched.reasons.items]
    assert len(reasons) == watched.server.metrics().connections_total
    assert {reason.cause for reason in reasons} <= {
        CloseCause.PEER_CLOSED,
        CloseCause.STOPPED,
        CloseCause.FAILED,  # reset by a peer, which has nothing else to say
    }
    assert len(watched.errors) == 0


# -- what accept says ----------------------------------------------------------------------------


def test_peers_that_reset_before_they_were_accepted() -> None:
    """They lie in the backlog when the loop begins to run: each is let go, those behind are served."""
    watched = Watched()
    address = watched.server.listen(LOCAL)
    for index in range(50):
        peer = Peer(address)
        if index % 2:
            peer.send_frame(POOLED, b"never read")
        peer.reset()
    with Peer(address) as other, serving(watched.server):
        check_alive(other)
        other.close()
        reasons = [reason for _, reason in watched.reasons.wait(51)]
        assert Counter(type(reason.error) for reason in reasons) == {
            ConnectionResetError: 50,
            type(None): 1,
        }


class _Aborting(socket.socket):
    """Listens; of those that wait, the first few have been aborted when they are accepted.

    Linux hands such connections out and has them fail when they are read; the BSDs report them here, as
    POSIX says, and POSIX's is what no loopback of Linux can be made to do.
    """

    left = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """As `socket.accept`."""
        if self.left:
            self.left -= 1
            super().accept()[0].close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort")
        return super().accept()


def test_a_connection_aborted_before_it_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    """ECONNABORTED: no reason to stop accepting, nor to wait, nor to raise an alarm."""
    listener = _Aborting()
    listener.bind(LOCAL)
    listener.listen(16)
    watched = Watched()
    address = watched.server.listen(listener)
    gone = [Peer(address) for _ in range(3)]
    listener.left = len(gone)
    with Peer(address) as peer, serving(watched.server):
        check_alive(peer)
        peer.close()
    assert listener.left == 0
    for other in gone:
        assert other.is_cut_off()
        other.close()
    assert watched.server.metrics().connections_total == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# -- descriptors ---------------------------------------------------------------------------------


def test_a_client_without_descriptors_says_so() -> None:
    with socket.create_server(LOCAL) as listener, ThreadPoolExecutor(1) as executor:
        errors: Calls[BaseException] = Calls()
        client = ClientConn(
            listener.getsockname(),
            on_error=lambda conn, error: errors.add(error),
            executor=executor,
        )
        with no_descriptors_left():
            client.start()
            with pytest.raises(ConnectionClosedError) as caught:
                client.wait_connected(DEADLINE)
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.EMFILE
        assert errors.items == [caught.value.__cause__]


def test_a_client_without_descriptors_tries_again_until_it_has_one() -> None:
    errors: Calls[BaseException] = Calls()
    watched = Watched()
    with watched.server.running(LOCAL) as address, ThreadPoolExecutor(1) as executor:
        client = ClientConn(
            address,
            on_error=lambda conn, error: errors.add(error),
            reconnect=Backoff(first=0.01, maximum=0.02),
            executor=executor,
        )
        with no_descriptors_left():
            client.start()
            assert getattr(errors.wait()[0], "errno", None) == errno.EMFILE
        assert client.wait_connected(DEADLINE)
        client.close()
        reason = client.wait_closed(DEADLINE)
        assert reason is not None
        assert reason.cause is CloseCause.CLOSED
