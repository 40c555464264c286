"""The parts of a service that need no service: sockets, links, orders, and the interpreter's options."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest

from tao.processes import Listeners, Order
from tao.processes.child import interpreter_flags
from tao.processes.link import Link
from tao.processes.listeners import SPREADS
from tests.support import LOCAL

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes share sockets on POSIX")


def first_of(listeners: Listeners) -> tuple[str, int]:
    """Its first address, which is TCP's."""
    address = listeners.addresses[0]
    assert isinstance(address, tuple)
    return address[0], address[1]


# -- listeners -----------------------------------------------------------------------------------


@pytest.mark.skipif(not SPREADS, reason="the kernel does not spread connections")
def test_each_slot_has_a_socket_of_its_own_at_a_port() -> None:
    listeners = Listeners([LOCAL], slots=3)
    try:
        descriptors = [listeners.of(slot) for slot in range(3)]
        assert len(set(descriptors)) == 3
        assert listeners.beside(1) == {0: descriptors[0], 2: descriptors[2]}
        assert len(listeners.addresses) == 1
        # Connections come to all of them: that each gets its share is the kernel's affair.
        clients = [socket.create_connection(first_of(listeners)) for _ in range(100)]
        accepted = [0, 0, 0]
        for slot, (number,) in enumerate(descriptors):
            with socket.socket(fileno=number) as sock:
                try:
                    while True:
                        sock.accept()[0].close()
                        accepted[slot] += 1
                except BlockingIOError:
                    sock.detach()
        assert sum(accepted) == 100
        assert all(accepted)
        for client in clients:
            client.close()
    finally:
        listeners.close()


def test_a_socket_that_is_shared_belongs_to_all(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        listeners = Listeners([str(tmp_path / "unix")], [given], slots=2)
        assert listeners.of(0) == listeners.of(1)
        assert listeners.beside(0) == {}
        assert len(listeners.addresses) == 2
        listeners.close()
        assert given.fileno() == -1


def test_without_spreading_there_is_one() -> None:
    listeners = Listeners([LOCAL], slots=2, spread=False)
    assert listeners.of(0) == listeners.of(1)
    listeners.close()


@pytest.mark.skipif(not SPREADS, reason="the kernel does not spread connections")
def test_a_port_of_another_service_is_taken_although_it_is_shared() -> None:
    first = Listeners([LOCAL], slots=2)
    address = first_of(first)
    try:
        with pytest.raises(OSError, match="cannot listen on") as caught:
            Listeners([LOCAL, address], slots=2)
        assert caught.value.errno == errno.EADDRINUSE
    finally:
        first.close()
    Listeners([address], slots=2).close()  # free at once


def test_what_waits_outlives_a_worker_s_copy() -> None:
    """The ground that a reload stands on: the queue of accept is the socket's, not the descriptor's."""
    listeners = Listeners([LOCAL], slots=1)
    try:
        with socket.socket(fileno=os.dup(listeners.of(0)[0])):
            client = socket.create_connection(first_of(listeners))
        # That worker's copy is closed: the next one's gets the connection.
        with client, socket.socket(fileno=os.dup(listeners.of(0)[0])) as successor:
            accepted, address = successor.accept()
            accepted.close()
            assert address == client.getsockname()
    finally:
        listeners.close()


# -- links ---------------------------------------------------------------------------------------


def test_a_link_carries_lines_however_they_come() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        link = Link(ours)
        theirs.sendall(b"loa")
        assert link.read() == []
        theirs.sendall(b"ded\nready\nali")
        assert link.read() == ["loaded", "ready"]
        theirs.sendall(b"ve\n")
        assert link.read() == ["alive"]
        assert link.send("stop", 1.5)
        assert theirs.recv(100) == b"stop 1.5\n"
    assert link.read() is None
    assert not link.send("ping")
    link.close()
    link.close()


def test_a_link_that_nobody_reads_does_not_wait() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        link = Link(ours)
        assert link.read() == []
        while link.send("ping" * 1000):
            pass
        link.close()


# -- orders --------------------------------------------------------------------------------------


def test_an_order_survives_the_command_line() -> None:
    order = Order(
        target="a.b:c",
        slot=1,
        control=5,
        listeners=(6, 7),
        spare={0: (8,), 2: (9,)},
        grace=1.5,
        log_level="info",
        app_dir="/srv/it's here",
        monitor=10,
    )
    assert Order.load(order.dump()) == order
    assert order.descriptors() == (5, 6, 7, 8, 9, 10)


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("python -m tao serve a:b -X dev", ""),
        ("python /usr/bin/tao serve", ""),
        ("python -X dev -W error -m tao", "-X dev -W error"),
        ("python -Xdev -Werror -P -OO /usr/bin/tao", "-Xdev -Werror -P -OO"),
        ("python --check-hash-based-pycs never -c pass -B", "--check-hash-based-pycs never"),
        ("python", ""),
    ],
)
def test_workers_get_the_interpreter_s_options(command: str, flags: str) -> None:
    assert interpreter_flags(command.split()) == flags.split()
