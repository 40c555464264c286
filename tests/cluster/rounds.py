"""The course of events: what is done to the servers and to Redis, and the result.

Contents: Plan, Result, run.

Owns the processes of the servers and of Redis, and ends them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.cluster.clients import Clients
from tests.cluster.judge import Connection, Verdict, judge
from tests.redis_support import RedisServer

__all__ = ["Plan", "Result", "run"]

ROOT = Path(__file__).resolve().parents[2]

DEADLINE = 30.0
"""Seconds after which something that should have happened has not, however busy the machine."""


@dataclass(frozen=True)
class Plan:
    """How much of it; times are in seconds."""

    clients: int = 200
    interval: float = 2.0
    """Between two messages of a client, about."""
    calm: float = 3.0
    """Between two events."""
    killed: float = 2.0
    """That a server is gone."""
    frozen: float = 5.0
    """That Redis is."""
    stopped: float = 10.0
    """That Redis is gone."""
    time_to_live: float = 7.5
    """That messages wait for Redis: longer than it is frozen, and not as long as it is gone."""
    ports: int = 2
    servers_per_port: int = 2


@dataclass
class Result:
    """What was seen."""

    verdict: Verdict
    connections: list[Connection]
    events: dict[str, Counter[str]]
    """By server: what its backplane has reported, with the sums of the counts."""
    counters: dict[str, dict[str, int]]
    """By server that was not killed: its counters at the end."""
    killed: list[str]
    phases: list[tuple[str, int, int]]
    """What happened, messages said and heard up to its end."""

    @property
    def said(self) -> int:
        """Messages, all together."""
        return sum(len(connection.said) for connection in self.connections)

    def percentile(self, share: float, *, local: bool) -> float:
        """Seconds in which that share of the messages was heard, on the same server or on others."""
        delays = sorted(
            delay
            for connection in self.connections
            for delay in (connection.local_delays if local else connection.remote_delays)
        )
        return delays[min(int(share * len(delays)), len(delays) - 1)]

    def summary(self) -> str:
        """For people."""
        lines = [
            f"{self.said} messages said on {len(self.connections)} connections, "
            f"{self.verdict.deliveries} heard"
        ]
        for local, where in ((True, "same server"), (False, "other servers")):
            shown = ", ".join(
                f"{share:.0%} in {self.percentile(share, local=local) * 1000:.1f} ms"
                for share in (0.5, 0.99, 1.0)
            )
            lines.append(f"heard on the {where}: {shown}")
        for server, events in self.events.items():
            shown = ", ".join(f"{name} {count}" for name, count in sorted(events.items()))
            state = " (killed)" if server in self.killed else ""
            lines.append(f"server {server[:6]}{state} reported: {shown}")
        for server, counters in self.counters.items():
            lines.append(f"server {server[:6]} counted: {counters}")
        lost = sorted(set(self.verdict.missing.values()))
        lines.append(
            f"lost while Redis was down, of others' messages, by connection: {lost or [0]}"
        )
        lines.append(f"{len(self.verdict.findings)} findings")
        lines += self.verdict.findings[:20]
        return "\n".join(lines)


@dataclass
class _Server:
    """One process."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def read(self) -> list[dict[str, object]]:
        # Not by `seek`: where the process writes next is a property of the file that both have open.
        fd = self.output.fileno()
        text = os.pread(fd, os.fstat(fd).st_size, 0)
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1:] == b"\n"]

    @property
    def member_id(self) -> str:
        return str(next(line["member_id"] for line in self.read() if "member_id" in line))


class _Cluster:
    """Redis and the servers."""

    def __init__(self, plan: Plan, redis: RedisServer, stack: ExitStack) -> None:
        self._plan = plan
        self._redis = redis
        self._stack = stack
        self.servers: list[_Server] = []
        self.ports = [self._port() for _ in range(plan.ports)]

    def _port(self) -> int:
        """One that is ours: bound, and not listening, so that it takes no connections."""
        sock = self._stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port

    def start(self, port: int) -> _Server:
        """One more server; it listens when this returns."""
        output = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - until the end
        process = subprocess.Popen(
            [
                sys.executable,
                *("-m", "tests.cluster.chat_server"),
                *(self._redis.url, str(port), str(self._plan.time_to_live)),
            ],
            cwd=ROOT,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stdout=output,
        )
        server = _Server(process, output)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        self.servers.append(server)
        ends = time.monotonic() + DEADLINE
        while not any("listening" in line for line in server.read()):
            assert process.poll() is None, "a server has ended"
            assert time.monotonic() < ends, "a server does not listen"
            time.sleep(0.02)
        return server

    def stop(self) -> None:
        """All that run, in good order."""
        running = [server for server in self.servers if server.process.poll() is None]
        for server in running:
            server.process.send_signal(signal.SIGTERM)
        for server in running:
            assert server.process.wait(DEADLINE) == 0


async def _until(condition: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < ends, what
        await asyncio.sleep(0.02)


async def _run(plan: Plan, say: Callable[[str], object], stack: ExitStack) -> Result:
    redis = stack.enter_context(RedisServer())
    cluster = _Cluster(plan, redis, stack)
    for port in cluster.ports:
        for _ in range(plan.servers_per_port):
            cluster.start(port)
    phases: list[tuple[str, int, int]] = []
    outages: list[tuple[float, float]] = []

    async with AsyncExitStack() as ending:
        clients = Clients(cluster.ports, plan.clients, plan.interval)
        ending.push_async_callback(clients.close)

        def note(what: str) -> None:
            said = sum(len(connection.said) for connection in clients.connections)
            phases.append((what, said, clients.received()))
            say(f"{what}: {said} said, {clients.received()} heard")

        async def calm() -> None:
            await asyncio.sleep(plan.calm)

        all_there = lambda: clients.welcome_count == plan.clients  # noqa: E731
        await _until(all_there, "not all clients have been welcomed")
        await calm()
        note("all clients are there")

        victim = cluster.servers[0]
        killed = victim.member_id
        clients.hold_back()
        victim.process.kill()
        victim.process.wait()
        await asyncio.sleep(plan.killed)
        await asyncio.to_thread(cluster.start, cluster.ports[0])
        clients.let_return()
        await _until(all_there, "not all clients have come back")
        await calm()
        note("a server was killed, and started again")

        redis.freeze()
        try:
            await asyncio.sleep(plan.frozen)
        finally:
            redis.thaw()
        await calm()
        note(f"Redis was frozen for {plan.frozen:g} s")

        began = time.monotonic() - 1.0  # what was on its way then
        redis.kill()
        await asyncio.sleep(plan.stopped)
        await asyncio.to_thread(redis.start)
        # What was said up to the time when the servers have found it again.
        outages.append((began, time.monotonic() + 1.0))
        await calm()
        note(f"Redis was gone for {plan.stopped:g} s, and came back empty")

        clients.quiet = True
        heard = -1
        while heard != clients.received():
            heard = clients.received()
            await asyncio.sleep(0.5)
        note("all is said")

    await asyncio.to_thread(cluster.stop)
    events: dict[str, Counter[str]] = {}
    counters: dict[str, dict[str, int]] = {}
    for server in cluster.servers:
        seen = events[server.member_id] = Counter()
        for line in server.read():
            if "event" in line:
                count = line["count"]
                seen[str(line["event"])] += count if isinstance(count, int) else 1
            found = line.get("counters")
            if isinstance(found, dict):
                counters[server.member_id] = found
    verdict = judge(clients.connections, outages)
    result = Result(verdict, clients.connections, events, counters, [killed], phases)
    _compare_with_reports(result)
    return result


def _compare_with_reports(result: Result) -> None:
    """What a listener did not hear, its server has reported: so many, and no more."""
    for connection in result.connections:
        if connection.ended:
            continue
        lost = result.verdict.missing[connection.id]
        reported = result.events[connection.server]["MISSED"]
        if lost != reported:
            result.verdict.findings.append(
                f"connection {connection.id} did not hear {lost} messages, "
                f"and its server has reported {reported}"
            )
    sent = sum(events["GIVEN_UP"] for events in result.events.values())
    if result.verdict.missing and not sent:
        result.verdict.findings.append("messages were lost, and no server has given any up")


def run(plan: Plan, say: Callable[[str], object]) -> Result:
    """All of it. Raises AssertionError when something does not even come to be judged."""
    with ExitStack() as stack:
        return asyncio.run(_run(plan, say, stack))
