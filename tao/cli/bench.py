"""`tao bench`: load on a server, its rate, and how long its replies take.

Owns the command line, and the processes that generate the load.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import queue
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from tao.cli.environment import add_option
from tao.cli.load import NANOSECONDS, Plan, Progress, Result
from tao.cli.load_process import LoadProcess, progress_of
from tao.cli.load_report import as_json, show
from tao.cli.outcome import DONE, FAILED, INTERRUPTED, CommandError, UsageError
from tao.cli.progress import ProgressDisplay, make_progress
from tao.cli.send import message_number
from tao.cli.server_options import add_server_options, client_tls
from tao.codec import MAX_LENGTH
from tao.terminal import CommandLine, count, seconds

__all__ = ["HELP", "NAME", "add_arguments", "generate", "run"]

NAME = "bench"
HELP = "put load on a server, and measure its replies"

DURATION = 10.0
"""Seconds, where the command line says neither how long nor how many."""

RATED_IN_FLIGHT = 64
"""On each connection, with a rate: the rate is to be the limit."""


def add_arguments(parser: CommandLine) -> None:
    """ADDRESS, how much load, for how long, and what a reply must be."""
    add_server_options(parser)
    load = parser.add_argument_group("load")
    options: list[tuple[str, str, Callable[[str], object], object, str, str]] = [
        ("--connections", "N", count, 10, "CONNECTIONS", "how many"),
        (
            "--in-flight",
            "N",
            count,
            None,
            "IN_FLIGHT",
            f"messages on each connection without a reply, at the most; by default 1, and with a rate "
            f"{RATED_IN_FLIGHT}",
        ),
        ("--size", "BYTES", size, 64, "SIZE", "of each message's value; no two are the same"),
        ("--message", "TEXT", str, None, "MESSAGE", "what every message says, in place of --size"),
        ("--type", "N", message_number, 1, "TYPE", "the message number, for the codec `tlv`"),
        (
            "--rate",
            "N",
            rate,
            None,
            "RATE",
            "messages per second, on all connections together; without it, each reply lets the next "
            "message go",
        ),
        (
            "--duration",
            "SECONDS",
            seconds,
            None,
            "DURATION",
            f"send for so long; by default {DURATION:g}, or until --messages have been sent",
        ),
        ("--messages", "N", count, None, "MESSAGES", "send so many, on all connections together"),
        ("--processes", "N", count, 1, "PROCESSES", "generate the load with so many"),
        (
            "--timeout",
            "SECONDS",
            seconds,
            5.0,
            "TIMEOUT",
            "for each connect, and for the replies that are out in the end",
        ),
    ]
    for flag, metavar, convert, default, variable, help in options:
        add_option(
            load,
            flag,
            metavar=metavar,
            variable=f"TAO_BENCH_{variable}",
            convert=convert,
            default=default,
            help=help,
        )
    add_option(
        load,
        "--expect",
        variable="TAO_BENCH_EXPECT",
        choices=("echo", "any"),
        default="echo",
        help="a reply is what was sent, or anything",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.epilog = """\
examples:
  tao bench localhost:12345
  tao bench localhost:12345 --connections 100 --in-flight 16 --messages 1000000
  tao bench localhost:12345 --rate 2000 --duration 30 --json

The server has to send one reply for each message, in order, such as
`python -m tao.examples.echo` does.

What is measured. Without --rate, a reply's time counts from when its message was sent, and
a server that stalls is asked less: its stall shows in few of the times. With --rate, it
counts from when the message was due, whether or not it could be sent then, and a stall shows
in all that it held up. Percentiles are exact to within 1 %.

The generator is a Python program, and may well be slower than the server. The last line says
how busy it was, and how much it could do at the most: that is the limit, and not the server,
if it was busy all the time; then pass more --processes, as long as there are processors for
them and for the server. On one machine both take from each other.

Status 1: a connect failed, a connection was lost, a reply was wrong or missing, or a message
could not be sent in time."""


def size(text: str) -> int:
    """The type of `--size`."""
    if not (text.isdecimal() and int(text) <= MAX_LENGTH):
        raise argparse.ArgumentTypeError(f"expected bytes from 0 to {MAX_LENGTH}, not {text!r}")
    return int(text)


def rate(text: str) -> float:
    """The type of `--rate`."""
    try:
        return seconds(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected a positive number of messages per second, not {text!r}"
        ) from None


def run(arguments: argparse.Namespace) -> int:
    """Generate the load, show what came of it; returns the exit status."""
    logging.basicConfig(level=logging.ERROR)
    client_tls(arguments)  # what is wrong with it is to be said once, and not by every process
    plan = make_plan(arguments)
    plans = split(plan, min(arguments.processes, plan.connections, plan.messages or sys.maxsize))
    outcome = generate(plans, make_progress(sys.stderr, quiet=arguments.quiet))
    if arguments.json:
        print(json.dumps(as_json(plan, outcome.result), indent=2))
    else:
        show(plan, outcome.result, sys.stdout)
    if outcome.interrupted:
        return INTERRUPTED
    return FAILED if outcome.result.failed else DONE


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Of the whole load. Raises UsageError for what makes no sense."""
    if arguments.message is not None and not arguments.message and arguments.codec == "line":
        raise UsageError("--message: an empty line is no message to measure by")
    duration = arguments.duration
    if duration is None and arguments.messages is None:
        duration = DURATION
    in_flight = arguments.in_flight or (1 if arguments.rate is None else RATED_IN_FLIGHT)
    return Plan(
        address=arguments.address,
        codec=arguments.codec,
        connections=arguments.connections,
        in_flight=in_flight,
        number=arguments.type,
        size=arguments.size,
        value=arguments.message,
        duration=duration,
        messages=arguments.messages,
        rate=arguments.rate,
        timeout=arguments.timeout,
        compare=arguments.expect == "echo",
        tls=client_tls(arguments) is not None,
        tls_ca=arguments.tls_ca,
        tls_name=arguments.tls_name,
        insecure=arguments.insecure,
    )


def split(plan: Plan, processes: int) -> list[Plan]:
    """The same load, of as many processes."""

    def part(whole: int, index: int) -> int:
        return whole // processes + (index < whole % processes)

    return [
        replace(
            plan,
            connections=part(plan.connections, index),
            messages=None if plan.messages is None else part(plan.messages, index),
            rate=None if plan.rate is None else plan.rate / processes,
            # Between two messages of the others, and not at the same time.
            phase=0.0 if plan.rate is None else index / plan.rate,
        )
        for index in range(processes)
    ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result, and whether Ctrl-C came before all of it."""

    result: Result
    interrupted: bool


def generate(plans: list[Plan], display: ProgressDisplay) -> Outcome:
    """Run each plan in a process of its own, all at the same time. For the main thread.

    Raises CommandError if one of them ends without a result.
    """
    said: queue.SimpleQueue[tuple[LoadProcess, dict[str, object]]] = queue.SimpleQueue()
    results: dict[LoadProcess, Result] = {}
    interrupted = False
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(LoadProcess(plan, said)) for plan in plans]
        running = _Running(plans, processes, display)
        running.wait_ready(said)
        for process in processes:
            process.begin()
        with display:
            while len(results) < len(processes):
                try:
                    process, what = said.get()
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = True
                    for each in processes:
                        each.stop()
                    continue
                running.check(process, what, process in results)
                if "progress" in what:
                    running.note(process, progress_of(what["progress"]))
                elif "result" in what:
                    result = what["result"]
                    assert isinstance(result, dict)
                    results[process] = Result.from_json(result)
    total = results.pop(processes[0])
    for result in results.values():
        total.merge(result)
    return Outcome(total, interrupted)


class _Running:
    """How far the processes have come, all together."""

    def __init__(
        self, plans: list[Plan], processes: list[LoadProcess], display: ProgressDisplay
    ) -> None:
        self._processes = processes
        self._display = display
        self._duration = plans[0].duration
        messages = [plan.messages for plan in plans if plan.messages is not None]
        self._messages = sum(messages) or None
        self._latest: dict[LoadProcess, Progress] = {}
        self._shown = (0, 0)  # nanoseconds, and replies

    def wait_ready(self, said: queue.SimpleQueue[tuple[LoadProcess, dict[str, object]]]) -> None:
        """Until all are connected, or have tried to be."""
        ready: set[LoadProcess] = set()
        while len(ready) < len(self._processes):
            process, what = said.get()
            self.check(process, what, False)
            ready.add(process)

    def check(self, process: LoadProcess, what: dict[str, object], has_result: bool) -> None:
        """Raise CommandError if it has ended before its time."""
        if "ended" in what and not has_result:
            raise CommandError(f"a generator has ended with status {what['ended']}")

    def note(self, process: LoadProcess, progress: Progress) -> None:
        """Take it in, and show it when all have said where they are."""
        self._latest[process] = progress
        if process is not self._processes[0]:
            return
        received = sum(each.received for each in self._latest.values())
        failures = sum(each.failures for each in self._latest.values())
        elapsed, before = self._shown
        rate = (received - before) * NANOSECONDS / ((progress.elapsed - elapsed) or 1)
        self._shown = progress.elapsed, received
        shares = [0.0]
        if self._duration is not None:
            shares.append(progress.elapsed / NANOSECONDS / self._duration)
        if self._messages is not None:
            shares.append(received / self._messages)
        text = f"{progress.elapsed / NANOSECONDS:.0f} s, {received:,} replies, {rate:,.0f}/s"
        if failures:
            text += f", {failures:,} problems"
        self._display.show(min(1.0, max(shares)), text)
