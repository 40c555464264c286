"""A network, and the descriptors of those who are on it.

Contents: Network, SimulatedSocket, SimulatedPipe.

Owns what lies between two sockets: segments under way, buffers, resets. It behaves as Linux does as far as
a program over TCP can tell; what Linux leaves open, the dice decide. No byte leaves the process. The
thread that has the baton only.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import zlib
from collections.abc import Callable
from typing import Any

from reactor.poller import READ, WRITE
from reactor.system import AddressInfo
from reactor.testing.clock import microseconds
from reactor.testing.scheduler import Scheduler
from reactor.testing.threads import Waiters

__all__ = ["Network", "SimulatedPipe", "SimulatedSocket"]

FIRST_DESCRIPTOR = 3
"""Those below are everybody's standard streams."""

FIRST_PORT = 49_152
"""Of those that are given to who does not ask for one: RFC 6335, 6."""

SYN_RETRY = 1.0
"""Seconds after which a connect that nobody has answered is tried again, then twice as many, and so on:
RFC 6298, 2.1 and 5.5."""

SYN_RETRIES = 6
"""After so many it fails with ETIMEDOUT: tcp(7), tcp_syn_retries."""

PIPE_SIZE = 8192
"""Bytes in a pipe: two passes of a loop that reads 4096 at once."""

Address = tuple[str, int]


class Network:
    """What connects sockets, and the table of a process's descriptors.

    A host has any numeric address; names are those in `names`. `descriptor_limit` is for all descriptors
    of the simulation; None: there is none.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.names: dict[str, list[str]] = {"localhost": ["127.0.0.1"]}
        """Addresses, in figures, by the name of the host."""
        self.descriptor_limit: int | None = None
        self.unreachable: set[str] = set()
        """Hosts from which nothing comes back, not even a refusal: who connects waits."""
        self.open: dict[int, SimulatedSocket | SimulatedPipe | None] = {}
        """The descriptors that are open; None for a spare one."""
        self.watchers: list[Callable[[int], object]] = []
        """Called with a descriptor that may have become ready."""
        self.connections: list[tuple[SimulatedSocket, SimulatedSocket]] = []
        """Every pair that there has ever been: who connected, and who was connected to."""
        self._listening: dict[Address, SimulatedSocket] = {}
        self._next_port = FIRST_PORT

    # -- descriptors -----------------------------------------------------------------------------

    def check_room(self) -> None:
        """Raises OSError, EMFILE, where the process has as many descriptors as it may."""
        if self.descriptor_limit is not None and len(self.open) >= self.descriptor_limit:
            raise _error(errno.EMFILE)

    def give(self, owner: SimulatedSocket | SimulatedPipe | None) -> int:
        """The lowest number that is free, as POSIX has it: numbers come back at once. Raises OSError."""
        self.check_room()
        fd = FIRST_DESCRIPTOR
        while fd in self.open:
            fd += 1
        self.open[fd] = owner
        return fd

    def take_back(self, fd: int) -> None:
        """It is closed. Raises OSError, EBADF, where it is not open."""
        if self.open.pop(fd, self) is self:
            raise _error(errno.EBADF)

    def socket(self, family: int = socket.AF_INET) -> SimulatedSocket:
        """A new one. It blocks: others run until it can go on."""
        if family not in (socket.AF_INET, socket.AF_INET6):
            raise _error(errno.EAFNOSUPPORT)
        made = SimulatedSocket(self, family)
        made.open()
        return made

    def pipe(self) -> SimulatedPipe:
        """A new one, with its one descriptor."""
        return SimulatedPipe(self)

    def addresses(self, host: str, port: int) -> list[AddressInfo]:
        """What the name stands for; whoever asks waits a moment. Raises socket.gaierror."""
        self.scheduler.sleep(self._delay(False) / 1e6)
        found = self.names.get(host)
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, (address, port))
            for address in found
        ]

    def changed(self, fd: int) -> None:
        """The descriptor may have become ready."""
        if fd >= 0:
            for watcher in self.watchers:
                watcher(fd)

    # -- the way between two sockets ---------------------------------------------------------------

    def bind(self, sock: SimulatedSocket, address: Address, listens: bool) -> Address:
        """The address, with a port if it had none. Raises OSError, EADDRINUSE."""
        host, port = address[:2]
        if not port:
            port, self._next_port = self._next_port, self._next_port + 1
        if listens:
            if (host, port) in self._listening:
                raise _error(errno.EADDRINUSE)
            self._listening[host, port] = sock
        return host, port

    def forget(self, address: Address) -> None:
        """Nobody listens there any more."""
        self._listening.pop(address, None)

    def listening(self) -> list[SimulatedSocket]:
        """All that listen, in the order in which they began."""
        return list(self._listening.values())

    def listener(self, address: Address) -> SimulatedSocket | None:
        """Who listens there, or everywhere on that port."""
        host, port = address
        for name in (host, "", "0.0.0.0", "::"):
            if (name, port) in self._listening:
                return self._listening[name, port]
        return None

    def _delay(self, slow: bool) -> int:
        faults, dice = self.scheduler.faults, self.scheduler.random
        low, high = microseconds(faults.shortest_delay), microseconds(faults.longest_delay)
        delay = low if low == high else dice.randint(low, high)
        return delay * 10 if slow else delay

    def later(self, slow: bool, action: Callable[[], object], not_before: int = 0) -> int:
        """Have it happen when a segment that is sent now would arrive; returns when."""
        when = max(self.scheduler.now + self._delay(slow), not_before)
        self.scheduler.at(when, action)
        return when


class SimulatedSocket(socket.socket):
    """A stream socket on a simulated network. A `socket.socket`, as far as this program uses one.

    One that blocks hands the baton over until it can go on. What the kernel would know and a program
    cannot ask is said by `taken` and `given`.
    """

    def __init__(self, network: Network, family: int) -> None:
        # The base class is not initialized: it has no descriptor of its own, and does nothing.
        self._network = network
        self._scheduler = network.scheduler
        self._family = socket.AddressFamily(family)
        self._fd = -1
        self._timeout: float | None = None
        self._state = "new"
        self._own_address: Address | None = None
        self._bound: Address | None = None
        self._queue: list[SimulatedSocket] = []  # connections to be accepted
        self._backlog = 0
        self._peer: SimulatedSocket | None = None
        self._slow = False
        self._error = 0  # to be told once: SO_ERROR
        self._dead = False  # a RST has come, or was sent
        self._generation = 0  # of the segments that are under way to here: those of others are lost
        self._lingers = True
        self._arrived = bytearray()
        self._flying = 0  # bytes under way to here
        self._last_arrival = 0  # when the last segment that is under way to here arrives
        self._fin_arrived = False
        self._fin_sent = False
        self._waiters = Waiters(network.scheduler)
        self.taken: bytearray = bytearray()
        """All that `send` has ever taken."""
        self.given: bytearray = bytearray()
        """All that has ever been received from it."""

    def open(self) -> None:
        """Get a descriptor. Raises OSError, EMFILE."""
        self._fd = self._network.give(self)

    # -- what it is ------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether the other end's FIN has come, or a RST: no more bytes come behind what has."""
        return self._fin_arrived or self._dead

    @property
    def waiting(self) -> int:
        """Connections that are to be accepted, of one that listens."""
        return len(self._queue)

    @property
    def family(self) -> socket.AddressFamily:
        return self._family

    @property
    def type(self) -> socket.SocketKind:
        return socket.SOCK_STREAM

    @property
    def proto(self) -> int:
        return 0

    def fileno(self) -> int:
        return self._fd

    def __repr__(self) -> str:
        return f"<SimulatedSocket fd={self._fd} {self._state} {self._own_address}>"

    def _note(self, what: str) -> None:
        self._scheduler.note(f"{what} {self._name}")

    @property
    def _name(self) -> str:
        peer = self._peer
        own = "-" if self._own_address is None else "{}:{}".format(*self._own_address[:2])
        return own if peer is None else "{}>{}:{}".format(own, *(peer._own_address or ("-", 0))[:2])

    def getsockname(self) -> Any:
        self._check_open()
        return self._own_address or ("0.0.0.0", 0)

    def getpeername(self) -> Any:
        self._check_open()
        if self._state != "connected" or self._dead or self._peer is None:
            raise _error(errno.ENOTCONN)
        return self._peer._own_address

    def setblocking(self, flag: bool) -> None:
        self._timeout = None if flag else 0.0

    def settimeout(self, value: float | None) -> None:
        self._timeout = value

    def gettimeout(self) -> float | None:
        return self._timeout

    def getblocking(self) -> bool:
        return self._timeout != 0.0

    def setsockopt(self, level: int, optname: int, value: Any, optlen: Any = None) -> None:
        self._check_open()
        if (level, optname) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._lingers = struct.unpack("ii", value) != (1, 0)

    def getsockopt(self, level: int, optname: int, buflen: Any = None) -> Any:
        self._check_open()
        if (level, optname) == (socket.SOL_SOCKET, socket.SO_ERROR):
            error, self._error = self._error, 0
            return error
        return 0

    def ready(self) -> int:
        """READ, WRITE, both or 0: what can be done without waiting."""
        if self._state == "listening":
            return READ if self._queue else 0
        if self._state == "connecting":
            return 0
        if self._state == "new":
            return READ | WRITE if self._error else WRITE
        if self._error or self._dead:
            return READ | WRITE
        readable = READ if self._arrived or self._fin_arrived else 0
        return readable | (WRITE if self._room() else 0)

    def _room(self) -> int:
        peer = self._peer
        assert peer is not None
        return self._scheduler.faults.buffer_size - len(peer._arrived) - peer._flying

    def _check_open(self) -> None:
        if self._fd < 0:
            raise _error(errno.EBADF)

    def _changed(self) -> None:
        self._waiters.wake()
        self._network.changed(self._fd)

    def _wait(self, what: int, until: int | None) -> None:
        """For one that blocks."""
        while not self.ready() & what:
            if not self._waiters.wait(f"{self!r}", until) and until is not None:
                raise TimeoutError("timed out")
            self._check_open()

    def _until(self) -> int | None:
        return None if self._timeout is None else self._scheduler.after(self._timeout)

    # -- coming about ----------------------------------------------------------------------------

    def bind(self, address: Any) -> None:
        self._check_open()
        self._bound = self._own_address = self._network.bind(self, address, False)

    def listen(self, backlog: int = 128) -> None:
        self._check_open()
        if self._bound is None:
            raise _error(errno.EINVAL)
        self._network.bind(self, self._bound, True)
        self._backlog = backlog
        self._state = "listening"

    def connect_ex(self, address: Any) -> int:
        self._check_open()
        self._scheduler.point()
        if self._state == "connected":
            return errno.EISCONN
        if self._state == "connecting":
            return errno.EALREADY
        self._state = "connecting"
        if self._own_address is None:
            self._own_address = self._network.bind(self, (address[0], 0), False)
        self._slow = self._scheduler.chance(self._scheduler.faults.slow_connections)
        self._note("connects to {}:{} from".format(*address[:2]))
        self._send_syn(address[:2])
        if self._timeout == 0.0:
            return errno.EINPROGRESS
        self._wait(READ | WRITE, self._until())
        error, self._error = self._error, 0
        return error

    def connect(self, address: Any) -> None:
        code = self.connect_ex(address)
        if code:
            raise _error(code)

    def _send_syn(self, target: Address, tried: int = 0) -> None:
        if self._state != "connecting" or self._peer is not None:
            return  # it has been answered, or given up
        if tried > SYN_RETRIES:
            self._fail_to_connect(errno.ETIMEDOUT)
            return
        if target[0] not in self._network.unreachable:
            self._network.later(self._slow, lambda: self._syn_arrives(target))
        again = self._scheduler.after(SYN_RETRY * 2**tried)
        self._scheduler.at(again, lambda: self._send_syn(target, tried + 1))

    def _syn_arrives(self, target: Address) -> None:
        if self._state != "connecting" or self._peer is not None:
            return
        listener = self._network.listener(target)
        if listener is None:
            self._network.later(self._slow, lambda: self._fail_to_connect(errno.ECONNREFUSED))
        elif len(listener._queue) <= listener._backlog:
            accepted = SimulatedSocket(self._network, self._family)
            accepted._own_address = target
            accepted._slow = self._slow
            accepted._state = "connected"
            accepted._peer, self._peer = self, accepted
            self._network.connections.append((self, accepted))
            listener._queue.append(accepted)
            listener._changed()
            when = self._network.later(self._slow, self._connected)
            self._last_arrival = max(self._last_arrival, when)

    def _fail_to_connect(self, error: int) -> None:
        if self._state == "connecting":
            self._state = "new"
            self._error = error
            self._changed()

    def _connected(self) -> None:
        if self._state == "connecting":
            self._state = "connected"
            self._changed()

    def accept(self) -> tuple[SimulatedSocket, Any]:
        self._check_open()
        scheduler, faults = self._scheduler, self._scheduler.faults
        scheduler.point()
        if self._timeout != 0.0:
            self._wait(READ, self._until())
        if not self._queue:
            raise _error(errno.EAGAIN)
        if scheduler.chance(faults.no_descriptor):
            self._note("accept: EMFILE")
            raise _error(errno.EMFILE)
        self._network.check_room()
        accepted = self._queue.pop(0)
        if scheduler.chance(faults.aborted_accept):
            self._note("accept: ECONNABORTED")
            accepted._send_reset()
            raise _error(errno.ECONNABORTED)
        accepted.open()
        accepted._note("accepts")
        assert accepted._peer is not None
        return accepted, accepted._peer._own_address

    # -- bytes -----------------------------------------------------------------------------------

    def send(self, data: Any, flags: int = 0) -> int:
        self._check_open()
        scheduler, faults = self._scheduler, self._scheduler.faults
        scheduler.point()
        self._check_sendable()
        if self._timeout != 0.0:
            self._wait(WRITE, self._until())
            self._check_sendable()
        data = bytes(data)
        size = min(len(data), self._room())
        if (data and not size) or (self._timeout == 0.0 and scheduler.chance(faults.full_send)):
            self._note(f"send of {len(data)}: full")
            raise _error(errno.EAGAIN)
        if size > 1 and scheduler.chance(faults.partial_send):
            size = scheduler.random.randint(1, size)
        taken = data[:size]
        self.taken += taken
        self._note(f"send of {len(data)}: {size}, {zlib.crc32(taken):08x}")
        self._dispatch(taken)
        return size

    def sendmsg(self, buffers: Any, *ancillary: Any) -> int:
        return self.send(b"".join(buffers))

    def sendall(self, data: Any, flags: int = 0) -> None:
        """For one that blocks."""
        data = bytes(data)
        while data:
            data = data[self.send(data) :]

    def _check_sendable(self) -> None:
        if self._error:
            error, self._error = self._error, 0
            raise _error(error)
        if self._state != "connected":
            raise _error(errno.ENOTCONN)
        if self._dead or self._fin_sent:
            raise _error(errno.EPIPE)

    def _dispatch(self, data: bytes) -> None:
        """Send a segment on its way; an empty one is a FIN."""
        scheduler, faults, peer = self._scheduler, self._scheduler.faults, self._peer
        assert peer is not None
        peer._flying += len(data)
        earliest = peer._last_arrival
        if data and scheduler.chance(faults.outage):
            self._note("outage of")
            earliest = max(earliest, scheduler.after(faults.outage_length))
        resets = bool(data) and scheduler.chance(faults.reset)
        generation = peer._generation
        peer._last_arrival = self._network.later(
            self._slow, lambda: peer._segment_arrives(data, generation, resets), earliest
        )

    def _segment_arrives(self, data: bytes, generation: int, resets: bool) -> None:
        peer = self._peer
        assert peer is not None
        if generation != self._generation or self._dead:
            return
        self._flying -= len(data)
        if resets:
            self._note("the network resets")
            self._handle_reset()
            self._network.later(self._slow, peer._handle_reset)
        elif self._state == "closed":
            # Nobody will ever read it, which its sender is told: RFC 1122, 4.2.2.13. A FIN, nobody
            # need read.
            if data:
                self._dead = True
                self._network.later(self._slow, peer._handle_reset)
        elif data:
            self._arrived += data
            self._changed()
        else:
            self._fin_arrived = True
            self._changed()

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        with memoryview(buffer) as view:
            size = min(len(view), nbytes or len(view))
            data = self.recv(size)
            view[: len(data)] = data
        return len(data)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        self._check_open()
        scheduler = self._scheduler
        scheduler.point()
        if self._state != "connected" and not self._error:
            raise _error(errno.ENOTCONN)
        if self._timeout != 0.0:
            self._wait(READ, self._until())
        if self._arrived:
            size = min(bufsize, len(self._arrived))
            if size > 1 and scheduler.chance(scheduler.faults.partial_receive):
                size = scheduler.random.randint(1, size)
            data = bytes(self._arrived[:size])
            del self._arrived[:size]
            self.given += data
            self._note(f"receive: {size}, {zlib.crc32(data):08x}")
            if self._peer is not None:
                self._peer._changed()
            return data
        if self._error:
            error, self._error = self._error, 0
            self._note(f"receive: {errno.errorcode[error]}")
            raise _error(error)
        if self._fin_arrived or self._dead:
            self._note("receive: end")
            return b""
        self._note("receive: nothing")
        raise _error(errno.EAGAIN)

    # -- the end ---------------------------------------------------------------------------------

    def shutdown(self, how: int) -> None:
        self._check_open()
        self._scheduler.point()
        if self._state != "connected" or self._dead:
            raise _error(errno.ENOTCONN)
        if how != socket.SHUT_RD and not self._fin_sent:
            self._fin_sent = True
            self._note("FIN from")
            self._dispatch(b"")

    def reset(self) -> None:
        """Close it so that the other end gets a RST."""
        self._lingers = False
        self.close()

    def close(self) -> None:
        if self._fd < 0:
            return
        self._note("close of")
        fd, self._fd = self._fd, -1
        self._network.take_back(fd)
        state, self._state = self._state, "closed"
        if state == "listening":
            assert self._own_address is not None
            self._network.forget(self._own_address)
            for waiting in self._queue:
                waiting._send_reset()
            self._queue.clear()
        elif self._peer is not None and not self._dead:
            if self._arrived or not self._lingers or state == "connecting":
                self._send_reset()
            elif not self._fin_sent:
                self._fin_sent = True
                self._dispatch(b"")
        self._waiters.wake()
        self._scheduler.point()

    def detach(self) -> int:
        raise NotImplementedError("a simulated socket's descriptor is of no use without it")

    def _send_reset(self) -> None:
        """What was sent before may arrive before it, or be lost with it: the dice know."""
        peer = self._peer
        assert peer is not None
        self._state, self._dead = "closed", True
        not_before = peer._last_arrival
        if self._scheduler.chance(0.5):
            peer._lose_segments()
            not_before = 0
        self._network.later(self._slow, peer._handle_reset, not_before)

    def _lose_segments(self) -> None:
        """Those that are under way to here."""
        self._generation += 1
        self._flying = 0

    def _handle_reset(self) -> None:
        """A RST has come. What had come before may still be read, or not: systems differ."""
        if self._dead:
            return
        self._dead = True
        self._lose_segments()
        if self._state == "closed":
            return
        self._error = errno.ECONNRESET
        self._note("RST to")
        if self._scheduler.chance(0.5):
            self._arrived.clear()
        if self._state == "connecting":
            self._state = "connected"  # and lost at once
        self._changed()

    def __enter__(self) -> SimulatedSocket:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        """Nothing: who does not close it leaves it in the table of descriptors."""


class SimulatedPipe:
    """The loop's wake-up pipe: one object for both ends. Implements `reactor.waker.Pipe`."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._scheduler = network.scheduler
        self._size = 0
        self._fd = network.give(self)

    def fileno(self) -> int:
        """Of the end that is read."""
        return self._fd

    def ready(self) -> int:
        """READ if there is something."""
        return READ if self._size else 0

    def send(self, data: bytes) -> int:
        """Raises BlockingIOError when it is full; which it may be for no reason of ours."""
        scheduler = self._scheduler
        scheduler.point()
        if self._fd < 0:
            raise _error(errno.EPIPE)
        if scheduler.chance(scheduler.faults.full_pipe):
            self._size = PIPE_SIZE
        full = self._size + len(data) > PIPE_SIZE
        if not full:
            self._size += len(data)
        scheduler.note(f"wake-up{': the pipe is full' if full else ''}")
        self._network.changed(self._fd)
        if full:
            raise _error(errno.EAGAIN)
        return len(data)

    def receive(self, size: int) -> bytes:
        """Raises BlockingIOError when it is empty."""
        self._scheduler.point()
        if not self._size:
            raise _error(errno.EAGAIN)
        taken = min(size, self._size)
        self._size -= taken
        return bytes(taken)

    def close(self) -> None:
        """Twice is once."""
        if self._fd >= 0:
            self._network.take_back(self._fd)
            self._fd = -1


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
