"""The mechanism under `tao`: an event loop, its timing wheel, connections, and a worker pool."""

from reactor.acceptor import Acceptor, listen
from reactor.buffers import ReceiveBuffer, SendQueue, Watermark
from reactor.clock import Clock, SystemClock
from reactor.close_reason import CloseCause, CloseReason
from reactor.connection import Connection
from reactor.connection_handler import ConnectionHandler
from reactor.connection_options import ConnectionOptions
from reactor.connector import Connector
from reactor.environment import Environment
from reactor.errors import (
    ForkError,
    HostError,
    IllegalTransitionError,
    PrefaceError,
    ReactorClosedError,
    ReactorError,
    ReentrancyError,
    WrongThreadError,
)
from reactor.ledger import Ledger
from reactor.loop import READ, WRITE, Channel, Host, Reactor, Statistics, Watched
from reactor.pause import Pause
from reactor.preface import Preface
from reactor.socket_file import SocketFile
from reactor.state import TRANSITIONS, ConnectionEvent, ConnectionState, StateMachine, diagram
from reactor.system import AddressInfo, OperatingSystem, SocketAddress, System
from reactor.timing_wheel import Timeout, TimingWheel
from reactor.tls import TlsStream, TlsTruncationError
from reactor.waker import Lock, Waker
from reactor.workers import Job, WorkerPool
from reactor.write_result import WriteResult

__all__ = [
    "READ",
    "TRANSITIONS",
    "WRITE",
    "Acceptor",
    "AddressInfo",
    "Channel",
    "Clock",
    "CloseCause",
    "CloseReason",
    "Connection",
    "ConnectionEvent",
    "ConnectionHandler",
    "ConnectionOptions",
    "ConnectionState",
    "Connector",
    "Environment",
    "ForkError",
    "Host",
    "HostError",
    "IllegalTransitionError",
    "Job",
    "Ledger",
    "Lock",
    "OperatingSystem",
    "Pause",
    "Preface",
    "PrefaceError",
    "Reactor",
    "ReactorClosedError",
    "ReactorError",
    "ReceiveBuffer",
    "ReentrancyError",
    "SendQueue",
    "SocketAddress",
    "SocketFile",
    "StateMachine",
    "Statistics",
    "System",
    "SystemClock",
    "Timeout",
    "TimingWheel",
    "TlsStream",
    "TlsTruncationError",
    "Waker",
    "Watched",
    "Watermark",
    "WorkerPool",
    "WriteResult",
    "WrongThreadError",
    "diagram",
    "listen",
]
