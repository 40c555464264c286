"""The order of what is written to one connection, by its handler and by other threads.

`Conn.write` promises that a message is sent behind what was written before it.
"""

from __future__ import annotations

import threading

import pytest

from tao import Context, MessageRegistry, Server, ServerConn, WriteCloser
from tests.support import DEADLINE, LOCAL, Peer, Sample, as_bytes


def elsewhere(conn: WriteCloser, value: bytes) -> None:
    """Write on another thread; when this returns, it has been written."""
    thread = threading.Thread(target=conn.write, args=(Sample(1, value),))
    thread.start()
    thread.join(DEADLINE)


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_what_another_thread_writes_after_a_handler_is_behind_it(inline: bool) -> None:
    registry = MessageRegistry()

    def handle(_context: Context[bytes], conn: WriteCloser) -> Sample:
        conn.write(Sample(1, b"first"))
        elsewhere(conn, b"second")
        conn.write(Sample(1, b"third"))
        return Sample(1, b"fourth")

    registry.register(1, as_bytes, handle, inline=inline)
    with Server(registry=registry).running(LOCAL) as address, Peer(address) as peer:
        for _ in range(5):
            peer.send_frame(1)
            values = [value for _, value in peer.receive_frames(4)]
            assert values == [b"first", b"second", b"third", b"fourth"]


def test_what_another_thread_writes_after_on_connect_has_written_is_behind_it() -> None:
    """A greeting, say, or a chat's history; then what somebody else says."""

    def greet(conn: ServerConn) -> None:
        conn.write(Sample(1, b"welcome"))
        elsewhere(conn, b"news")

    with Server(registry=MessageRegistry(), on_connect=greet).running(LOCAL) as address:
        for _ in range(5):
            with Peer(address) as peer:
                values = [value for _, value in peer.receive_frames(2)]
                assert values == [b"welcome", b"news"]
