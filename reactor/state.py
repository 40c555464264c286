"""The states of a connection, as data.

Owns the states, the events, the one table between them, and the one class that writes a state. It
does nothing else: no sockets, no callbacks, no time. `diagram` draws the table for the README.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar

from reactor.errors import IllegalTransitionError

__all__ = ["TRANSITIONS", "ConnectionEvent", "ConnectionState", "StateMachine", "diagram"]


class ConnectionState(enum.Enum):
    """Where a connection is between its first packet and its last."""

    CONNECTING = "CONNECTING"
    """Not yet up: a client's connect is under way, or a server has just accepted."""
    PREFACING = "PREFACING"
    """TCP is up, and something must come before all else: who the peer behind a proxy is."""
    HANDSHAKING = "HANDSHAKING"
    """TCP is up, TLS is not yet."""
    OPEN = "OPEN"
    """Messages flow."""
    DRAINING = "DRAINING"
    """It is to end: handlers that run and bytes that are queued are seen through, nothing new."""
    LINGERING = "LINGERING"
    """All is sent, and our FIN after it; a bounded wait for the peer's own."""
    CLOSED = "CLOSED"
    """Final. The descriptor is gone."""

    # Members are single; Enum's own is written in Python.
    __hash__: ClassVar[Callable[[object], int]] = object.__hash__

    def __str__(self) -> str:
        return self.value


class ConnectionEvent(enum.Enum):
    """What can happen to a connection."""

    PREFACE = "PREFACE"
    """TCP is up, and a preface must come."""
    CONNECTED = "CONNECTED"
    """TCP is up, the preface has come if there must be one, and there is no TLS."""
    SECURE = "SECURE"
    """Likewise, and TLS begins."""
    SECURED = "SECURED"
    """The TLS handshake is done."""
    CLOSE = "CLOSE"
    """This side wants to end, with nothing lost."""
    PEER_FIN = "PEER_FIN"
    """The peer will send no more."""
    DRAINED = "DRAINED"
    """No handler runs and no byte is queued."""
    EXPIRE = "EXPIRE"
    """The state's deadline has passed."""
    ABORT = "ABORT"
    """This side wants to end now."""
    FAIL = "FAIL"
    """The connection cannot go on: an error of the network, of TLS, of the protocol."""

    __hash__: ClassVar[Callable[[object], int]] = object.__hash__

    def __str__(self) -> str:
        return self.value


_S = ConnectionState
_E = ConnectionEvent

TRANSITIONS: Mapping[ConnectionState, Mapping[ConnectionEvent, ConnectionState]] = MappingProxyType(
    {
        _S.CONNECTING: MappingProxyType(
            {
                _E.PREFACE: _S.PREFACING,
                _E.CONNECTED: _S.OPEN,
                _E.SECURE: _S.HANDSHAKING,
                _E.CLOSE: _S.CLOSED,
                _E.EXPIRE: _S.CLOSED,
                _E.ABORT: _S.CLOSED,
                _E.FAIL: _S.CLOSED,
            }
        ),
        _S.PREFACING: MappingProxyType(
            {
                _E.CONNECTED: _S.OPEN,
                _E.SECURE: _S.HANDSHAKING,
                _E.CLOSE: _S.CLOSED,
                _E.PEER_FIN: _S.CLOSED,
                _E.EXPIRE: _S.CLOSED,
                _E.ABORT: _S.CLOSED,
                _E.FAIL: _S.CLOSED,
            }
        ),
        _S.HANDSHAKING: MappingProxyType(
            {
                _E.SECURED: _S.OPEN,
                _E.CLOSE: _S.CLOSED,
                _E.PEER_FIN: _S.CLOSED,
                _E.EXPIRE: _S.CLOSED,
                _E.ABORT: _S.CLOSED,
                _E.FAIL: _S.CLOSED,
            }
        ),
        _S.OPEN: MappingProxyType(
            {
                _E.CLOSE: _S.DRAINING,
                _E.PEER_FIN: _S.DRAINING,
                _E.ABORT: _S.CLOSED,
                _E.FAIL: _S.CLOSED,
            }
        ),
        # The peer's FIN is not looked for in here: reading has stopped. The kernel remembers it, and
        # LINGERING, which reads again, finds it there.
        _S.DRAINING: MappingProxyType(
            {
                _E.DRAINED: _S.LINGERING,
                _E.EXPIRE: _S.CLOSED,
                _E.ABORT: _S.CLOSED,
                _E.FAIL: _S.CLOSED,
            }
        ),
        _S.LINGERING: MappingProxyType(
            {
                _E.PEER_FIN: _S.CLOSED,
                _E.EXPIRE: _S.CLOSED,
                _E.ABORT: _S.CLOSED,
                _E.FAIL: _S.CLOSED,
            }
        ),
        _S.CLOSED: MappingProxyType({}),
    }
)
"""For each state, the events that it has and the states that they lead to. Read-only."""


class StateMachine:
    """One connection's state. The only code that writes a ConnectionState.

    For a connection to be one: it has no lock of its own, and the subclass says under which lock, or on
    which thread, it is used.
    """

    __slots__ = ("state",)

    def __init__(self, state: ConnectionState) -> None:
        self.state: ConnectionState = state
        """To be read by anybody, written by this class alone."""

    def accepts(self, event: ConnectionEvent) -> bool:
        """Whether `event` may happen in the present state."""
        return event in TRANSITIONS[self.state]

    def change_state(self, event: ConnectionEvent) -> ConnectionState:
        """Move along the table; returns the new state.

        Raises IllegalTransitionError, and changes nothing, where the table has no such event.
        """
        try:
            self.state = TRANSITIONS[self.state][event]
        except KeyError:
            raise IllegalTransitionError(self.state, event) from None
        return self.state

    def __repr__(self) -> str:
        return f"<StateMachine {self.state}>"


def diagram() -> str:
    """The table as a Mermaid state diagram, one arrow for each pair of states."""
    lines = ["stateDiagram-v2", "    [*] --> CONNECTING"]
    for state, row in TRANSITIONS.items():
        arrows: dict[ConnectionState, list[str]] = {}
        for event, target in row.items():
            arrows.setdefault(target, []).append(event.value)
        lines += [f"    {state} --> {to}: {', '.join(events)}" for to, events in arrows.items()]
    lines.append("    CLOSED --> [*]")
    return "\n".join(lines)
