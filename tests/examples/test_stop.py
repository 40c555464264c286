"""What an embedding program, and one that is asked to stop twice, may rely on."""

from __future__ import annotations

import socket
import struct
import threading
import time
from typing import ClassVar

from reactor import Reactor
from tao import Context, MessageRegistry, Server, WriteCloser


def test_stop_on_the_thread_that_drives_the_loop_does_not_wait_for_itself() -> None:
    reactor = Reactor()
    server = Server(registry=MessageRegistry(), reactor=reactor)
    server.listen(("127.0.0.1", 0))
    reactor.run_once(0)  # from here on the reactor is this thread's
    began = time.monotonic()
    report = server.stop(8.0)  # between two passes: nobody but this thread could make the next
    waited = time.monotonic() - began
    deadline = time.monotonic() + 10.0
    while not report.finished and time.monotonic() < deadline:
        reactor.run_once(0.05)
        report = server.stop(0.0)
    reactor.close()
    assert report.finished
    assert waited < 4.0


def test_a_longer_grace_does_not_replace_a_shorter_one() -> None:
    registry = MessageRegistry()
    started, cancelled, released = threading.Event(), threading.Event(), threading.Event()

    @registry.handler(Wait)
    def wait(ctx: Context[Wait], _conn: WriteCloser) -> None:
        started.set()
        ctx.wait_cancelled(10.0)
        cancelled.set()
        released.wait(30.0)

    server = Server(registry=registry)
    with server.running(("127.0.0.1", 0)) as address, socket.create_connection(address) as sock:
        sock.sendall(struct.pack("<iI", 1, 0))
        assert started.wait(10.0)
        sock.settimeout(10.0)
        first = threading.Thread(target=server.stop, args=(0.5,))
        first.start()
        assert cancelled.wait(10.0)  # the first stop is under way
        second = threading.Thread(target=server.stop, args=(20.0,))
        second.start()
        try:
            sock.recv(1)
        except ConnectionResetError:
            cut_off = True  # at the end of the shorter grace
        except TimeoutError:
            cut_off = False
        finally:
            released.set()
        first.join()
        second.join()
    assert cut_off


class Wait:
    """Asks the handler to take its time."""

    message_number: ClassVar[int] = 1

    @classmethod
    def deserialize(cls, _data: bytes) -> Wait:
        return cls()
