"""What the framework counts, and what it waits for, looked at while nobody can run.

Contents: check_counts, check_budget, check_pool, stuck, stuck_connector, stuck_pool.

The ledger sees what goes in and what comes out. But a byte that waits for ever comes to its end all the
same: a deadline cuts the connection off, and the reason tells of what was not sent. What was forgotten
can only be told from what had to wait by looking inside: whoever waits must wait for something.

Nothing in here changes anything, or passes a point at which threads are interrupted.
"""

from __future__ import annotations

from typing import Any

from reactor import READ, WRITE, Connection, ConnectionState, Connector, Pause, WorkerPool
from reactor.testing.threads import SimulatedEvent
from tao import Server
from tao.session import _NOTHING_KEPT, _NOTHING_WAITS, Session
from tao.waiting import NO_MESSAGE, held_by

__all__ = [
    "check_budget",
    "check_counts",
    "check_pool",
    "stuck",
    "stuck_connector",
    "stuck_pool",
]

_SENDING = (ConnectionState.OPEN, ConnectionState.DRAINING)
_ENDING = (ConnectionState.DRAINING, ConnectionState.LINGERING)


def check_counts(session: Session[Any], longest_frame: int) -> str | None:
    """What is counted wrongly, or is more than may be; None if all is right."""
    if _NOTHING_WAITS or _NOTHING_KEPT.begun:
        return "something was put where nothing stands, for all sessions"
    connection = session.connection
    if connection.state is ConnectionState.CLOSED:
        return None
    outbox = sum(map(len, connection._outbox))
    queued = sum(map(len, connection._queue._buffers or ()))
    if (connection.outbox_size, connection._queue.size) != (outbox, queued):
        return (
            f"{connection.outbox_size} bytes are counted in the outbox and {connection._queue.size} "
            f"in the queue, and there are {outbox} and {queued}"
        )
    if connection._in_flight:
        return f"{connection._in_flight} bytes are in flight, and nobody sends"
    if not 0 <= connection._own_taken <= len(connection.own):
        return f"{connection._own_taken} frames were taken of {len(connection.own)}"
    options = connection._environment.options
    # What handlers in hand return is let go over it, as far as the high watermark and one frame.
    most = options.output_limit + options.output.high + longest_frame
    if connection.pending > most:
        return f"{connection.pending} bytes are pending, and {most} may be"
    if connection._charged != connection.pending:
        return (
            f"{connection._charged} bytes are charged for {connection.pending} that wait to be sent"
        )
    held, out = held_by(session._inbox), held_by(session._batch or [])
    books = (session._held, session._charged, session._batch_held)
    if books != (held, held + session._input.size, out):
        return (
            f"{books} bytes are said to be held, charged and out with a batch, and there are {held} in "
            f"the inbox, {session._input.size} that are no message yet, and {out} out"
        )
    # A batch that was given up comes back in front of what has come meanwhile.
    waiting = [*(session._batch or ()), *session._inbox]
    messages = sum(item[0] not in NO_MESSAGE for item in waiting)
    room = session._service.options.buffer_size
    if messages > 2 * room:
        return f"{messages} messages wait, and there is room for {room}"
    return None


def check_budget(server: Server) -> str | None:
    """What the server's ledger has wrongly; None if it is right."""
    if server._budget is None or (server._stopping and server._stopping.left_behind):
        return None  # those that are left behind keep what they hold
    total = server._budget.ledger.total
    held = sum(
        session._charged + session._batch_held + session.connection._charged
        for session in server._sessions.values()
    )
    if total != held:
        return f"the server's ledger has {total} bytes, and its connections hold {held}"
    return None


def stuck(session: Session[Any]) -> str | None:
    """What waits although nothing will ever end that; None if there is no such thing."""
    connection = session.connection
    state = connection.state
    if state in _SENDING:
        found = _stuck_bytes(connection)
        if found is not None:
            return found
    extras = session._extras
    event = None if extras is None else extras.cancelled
    if isinstance(event, SimulatedEvent) and event.awaited and session.cancelled:
        return "somebody waits to be told that nothing is wanted any more, and is not told"
    if state is ConnectionState.OPEN:
        found = _stuck_reading(session)
    elif state in _ENDING:
        found = _stuck_ending(session)
    else:
        found = None
    return found or _stuck_messages(session)


def _stuck_bytes(connection: Connection) -> str | None:
    if connection._outbox and not connection._queue:
        return f"{connection.outbox_size} bytes wait in the outbox, and nobody will send them"
    if connection._queue and not connection.events & WRITE:
        return f"{connection._queue.size} bytes wait for a socket that nobody watches"
    if len(connection.own) > connection._own_taken:
        return "a handler has written something, and nobody takes it"
    return None


def _stuck_reading(session: Session[Any]) -> str | None:
    connection = session.connection
    paused = connection.paused
    if paused & Pause.OUTPUT and connection.pending <= connection.output.low:
        return "reading is paused for a peer that has read"
    waits = session._batch is not None or session._inbox or session._backlog
    if paused & Pause.WORK and not waits:
        return "reading is paused for work that is not there"
    if paused & Pause.MEMORY and not session._service.ledger.pressed:
        return "reading is paused for want of memory, and there is enough"
    if not paused and not connection.events & READ:
        return "nothing pauses reading, and nobody reads"
    return None


def _stuck_ending(session: Session[Any]) -> str | None:
    connection = session.connection
    if connection._deadline is None or not connection._deadline.active:
        return f"it is {connection.state}, and has no deadline"
    if len(session.timers):
        return f"it is {connection.state}, and {len(session.timers)} timers go on"
    extras = session._extras
    expectations = None if extras is None else extras.expectations
    keeper = None if expectations is None else expectations._keeper
    if keeper is not None and keeper._timeout.active:
        return f"it is {connection.state}, and its heartbeat goes on"
    if (
        connection.state is ConnectionState.DRAINING
        and session.is_idle()
        and not connection.pending
    ):
        return "nothing is left to drain, and it goes on"
    return None


def _stuck_messages(session: Session[Any]) -> str | None:
    if session._batch is not None or session.connection.paused & Pause.OUTPUT:
        return None
    if session._inbox or session._backlog:
        return f"{len(session._inbox)} messages wait, and nobody handles them"
    if session._closed_with is not None:
        return "it is closed, and nobody tells of it"
    return None


def check_pool(pool: WorkerPool) -> str | None:
    """What a pool may not do for a moment; None if all is right. It looks again after a millisecond: so it
    finds what it has forgotten, but late."""
    if pool._ready and not pool._drains:
        return f"{len(pool._ready)} jobs wait, and no worker has been called"
    if pool._finished and not (pool._watching or pool._reactor._posted):
        return f"{len(pool._finished)} jobs have been run, and the loop has not been told"
    return None


def stuck_pool(pool: WorkerPool) -> str | None:
    """What a pool has forgotten; None if there is no such thing."""
    if pool._finished:
        return f"{len(pool._finished)} jobs have been run, and nobody takes them back"
    if pool._ready and pool._drains < pool._worker_size:
        return (
            f"{len(pool._ready)} jobs wait since {pool._taken_at:.6f}, when the last was taken, and "
            f"{pool._drains} of {pool._worker_size} workers work"
        )
    return None


def stuck_connector(connector: Connector) -> str | None:
    """A connect that may take for ever; None if it is none."""
    deadline = connector._deadline
    if connector._channel is not None and (deadline is None or not deadline.active):
        return "it connects, and has no deadline"
    return None
