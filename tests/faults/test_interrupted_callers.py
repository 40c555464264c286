"""Ctrl-C on a thread that writes to connections, or ends them, while their loop runs on another.

A signal is looked at behind a call, at the beginning of a function, and where a loop goes round. The tests
raise KeyboardInterrupt at each of these places in turn, however many there are.
"""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import reactor
import tao
from reactor import CloseCause, Reactor
from tao import ClientConn, CloseReason, Context, MessageRegistry, Server, WriteCloser
from tests.support import DEADLINE, LOCAL, Calls, Sample, as_bytes, wait_until

OURS = tuple(str(Path(package.__file__ or "").parent) for package in (reactor, tao))
LOOKED_AT_BEHIND = {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"}


@cache
def _places(code: CodeType) -> frozenset[int]:
    """Where an instruction stands before which the interpreter looks for signals."""
    instructions = list(dis.get_instructions(code))
    return frozenset(
        following.offset
        for before, following in pairwise(instructions)
        if before.opname in LOOKED_AT_BEHIND
    )


def interrupt(call: Callable[[], object], place: int) -> bool:
    """Call it, and raise KeyboardInterrupt at that place of its way through this project; whether it has so
    many."""
    passed = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal passed
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in _places(frame.f_code):
            passed += 1
            if passed > place:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return passed > place


def then(call: Callable[[], object]) -> None:
    """What comes after: on another thread, so that a lock which was kept is noticed."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive(), "it waits for ever"
    assert not failures


class Ends:
    """A server, what has come there, and what its clients were told and how they have ended."""

    def __init__(self) -> None:
        self.received: Calls[bytes] = Calls()
        self.told: Calls[bytes] = Calls()
        self.reasons: Calls[CloseReason] = Calls()
        self.server = Server(registry=self._registry(self.received))
        self.address: Any = None

    @staticmethod
    def _registry(calls: Calls[bytes]) -> MessageRegistry:
        def handle(context: Context[bytes], _conn: WriteCloser) -> None:
            calls.add(context.message)

        registry = MessageRegistry()
        registry.register(1, as_bytes, handle)
        return registry

    def connect(self) -> ClientConn:
        """A client that is connected."""
        client = ClientConn(
            self.address,
            registry=self._registry(self.told),
            on_close=lambda _, reason: self.reasons.add(reason),
        )
        client.start()
        client.wait_connected(DEADLINE)
        return client


@contextmanager
def serving() -> Iterator[Ends]:
    ends = Ends()
    with ends.server.running(LOCAL) as ends.address:
        yield ends


def test_ctrl_c_in_a_write_holds_up_no_other() -> None:
    with serving() as ends:
        client = ends.connect()
        for place in count():
            interrupted = interrupt(lambda: client.write(Sample(1, b"interrupted")), place)
            behind = b"%d" % place
            then(lambda behind=behind: client.write(Sample(1, behind)))  # type: ignore[misc]
            assert wait_until(lambda behind=behind: behind in ends.received.items), place  # type: ignore[misc]
            if not interrupted:
                break
        assert place > 10
        client.close()
        assert client.wait_closed(DEADLINE) == CloseReason(CloseCause.CLOSED)


@pytest.mark.parametrize("abort", [False, True], ids=["close", "abort"])
def test_ctrl_c_in_the_end_of_a_connection(*, abort: bool) -> None:
    """Asked a second time, it ends."""
    with serving() as ends:
        for place in count():
            client = ends.connect()
            end = client.abort if abort else client.close
            interrupted = interrupt(end, place)
            then(end)
            reason = client.wait_closed(DEADLINE)
            assert reason is not None, f"it does not end, interrupted at place {place}"
            assert reason.cause is (CloseCause.ABORTED if abort else CloseCause.CLOSED)
            if not interrupted:
                break
        assert place > 10
        assert len(ends.reasons) == place + 1, "on_close comes once for each"


def test_ctrl_c_in_a_broadcast_holds_up_nobody() -> None:
    with serving() as ends:
        clients = [ends.connect(), ends.connect()]
        assert wait_until(lambda: ends.server.connection_count == 2)
        for place in count():
            interrupted = interrupt(lambda: ends.server.broadcast(Sample(1, b"interrupted")), place)
            behind = b"%d" % place
            then(lambda behind=behind: ends.server.broadcast(Sample(1, behind)))  # type: ignore[misc]
            assert wait_until(lambda behind=behind: ends.told.items.count(behind) == 2), place  # type: ignore[misc]
            if not interrupted:
                break
        assert place > 20
        for client in clients:
            client.close()
            assert client.wait_closed(DEADLINE) == CloseReason(CloseCause.CLOSED)


def test_ctrl_c_where_a_loop_is_called_does_not_keep_it_asleep() -> None:
    loop = Reactor()
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        for place in count():
            called: Calls[int] = Calls()
            interrupted = interrupt(lambda: loop.call_soon_threadsafe(int), place)
            then(lambda: loop.call_soon_threadsafe(called.add, 1))  # noqa: B023 - before the next round
            called.wait()
            if not interrupted:
                break
        assert place > 3
    finally:
        loop.stop()
        thread.join()
        loop.close()
