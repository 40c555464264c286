"""tao: serve framed messages over TCP.

Define a message, register a function for it, start a server. Framing, ordering, worker threads,
timers and back-pressure are done here.
"""

from reactor import (
    CloseCause,
    CloseReason,
    ConnectionOptions,
    ConnectionState,
    SocketAddress,
    Watermark,
)
from tao.atomic import AtomicBoolean, AtomicInt32, AtomicInt64
from tao.backoff import Backoff
from tao.backplane import (
    Backplane,
    BackplaneEvent,
    BackplaneLink,
    BackplaneReport,
    Envelope,
    Inbox,
    LocalBackplane,
    Reach,
)
from tao.calls import CorrelatingCodec
from tao.client import ClientConn
from tao.codec import Codec, TypeLengthValueCodec
from tao.conditions import Objection, Phase, Refusal
from tao.connection_map import ConnectionMap
from tao.context import Context
from tao.context_key import ContextKey
from tao.data_source import DataSource
from tao.errors import (
    AdmissionError,
    ConnectionClosedError,
    FrameTooLargeError,
    NotRegisteredError,
    ProxyProtocolError,
    TaoError,
    UndefinedMessageError,
    WouldBlockError,
)
from tao.group import BroadcastReport, Group
from tao.heartbeat import Heartbeat
from tao.interfaces import MessageServer, WriteCloser
from tao.length_prefixed_codec import LengthPrefixedCodec
from tao.line_codec import LineCodec
from tao.listening import ListenOptions
from tao.message import HeartBeatMessage, Message
from tao.metrics import MetricsSnapshot
from tao.monitor import Monitor, monitor_on
from tao.rate import Rate
from tao.redis_backplane import RedisBackplane
from tao.registry import MessageRegistry, default_registry, register
from tao.server import Server
from tao.server_conn import ServerConn
from tao.stop_report import StopReport
from tao.tls import load_client_tls, load_server_tls

__all__ = [
    "AdmissionError",
    "AtomicBoolean",
    "AtomicInt32",
    "AtomicInt64",
    "Backoff",
    "Backplane",
    "BackplaneEvent",
    "BackplaneLink",
    "BackplaneReport",
    "BroadcastReport",
    "ClientConn",
    "CloseCause",
    "CloseReason",
    "Codec",
    "ConnectionClosedError",
    "ConnectionMap",
    "ConnectionOptions",
    "ConnectionState",
    "Context",
    "ContextKey",
    "CorrelatingCodec",
    "DataSource",
    "Envelope",
    "FrameTooLargeError",
    "Group",
    "HeartBeatMessage",
    "Heartbeat",
    "Inbox",
    "LengthPrefixedCodec",
    "LineCodec",
    "ListenOptions",
    "LocalBackplane",
    "Message",
    "MessageRegistry",
    "MessageServer",
    "MetricsSnapshot",
    "Monitor",
    "NotRegisteredError",
    "Objection",
    "Phase",
    "ProxyProtocolError",
    "Rate",
    "Reach",
    "RedisBackplane",
    "Refusal",
    "Server",
    "ServerConn",
    "SocketAddress",
    "StopReport",
    "TaoError",
    "TypeLengthValueCodec",
    "UndefinedMessageError",
    "Watermark",
    "WouldBlockError",
    "WriteCloser",
    "default_registry",
    "load_client_tls",
    "load_server_tls",
    "monitor_on",
    "register",
]
