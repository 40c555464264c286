"""`tao monitor`: what a running server does, on a terminal.

Contents: the command; MonitorClient, which asks a monitor for its `/status`.

Owns the asking, and what is done when there is no answer: a monitor that was never reached ends the
command, one that was is asked again. What is shown is `tao.cli.monitor_view`'s affair. One thread.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from tao.address import parse_address
from tao.cli.environment import add_option
from tao.cli.monitor_view import Lines, Screen, View, full_text, has_rich
from tao.cli.outcome import DONE, CommandError, UsageError
from tao.monitor.access import check_token
from tao.monitor.watch import SORTS
from tao.terminal import CommandLine, count, seconds

__all__ = ["HELP", "NAME", "MonitorClient", "add_arguments", "run"]

NAME = "monitor"
HELP = "show what a running server does, from its monitor"

LARGEST_ANSWER = 16 << 20
"""Bytes. A monitor of a hundred servers says less."""

RECENT = 10.0
"""Seconds back from which points are asked for, when there was an answer: only the last is shown."""

RATES_AFTER = 3
"""Times that `--once` asks, for numbers per second: a monitor has none when nobody has watched before."""


def add_arguments(parser: CommandLine) -> None:
    """Its options."""
    parser.add_argument(
        "address",
        metavar="ADDRESS",
        type=_address,
        help="where monitor_on listens: HOST:PORT, or the URL of its page",
    )
    add_option(
        parser,
        "--token",
        variable="TAO_MONITOR_TOKEN",
        help="the monitor's token; better in the variable, for other users see command lines",
    )
    add_option(
        parser,
        "--interval",
        variable="TAO_MONITOR_INTERVAL",
        convert=seconds,
        default=1.0,
        metavar="SECONDS",
        help="between two looks",
    )
    add_option(
        parser,
        "--timeout",
        variable="TAO_TIMEOUT",
        convert=seconds,
        default=5.0,
        metavar="SECONDS",
        help="for an answer",
    )
    parser.add_argument("--server", metavar="NAME", help="which one, if the monitor has several")
    parser.add_argument(
        "--sort", choices=list(SORTS), default="bytes", help="which connections are first"
    )
    parser.add_argument(
        "--connections", type=count, default=10, metavar="N", help="how many of them (10)"
    )
    parser.add_argument("--once", action="store_true", help="look once, and end")
    parser.add_argument("--json", action="store_true", help="print what the monitor says, as JSON")
    parser.epilog = "example:\n  tao monitor 127.0.0.1:6060 --once"


def _address(text: str) -> tuple[str, int]:
    plain = text.removeprefix("http://").rstrip("/")
    try:
        address = parse_address(plain, first_port=1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if isinstance(address, str):
        raise argparse.ArgumentTypeError(f"a monitor listens on HOST:PORT, not on {text!r}")
    return address[0] or "127.0.0.1", address[1]


def run(arguments: argparse.Namespace) -> int:
    """Look, and show, until Ctrl-C; or once."""
    # Before it is sent: what a header cannot carry fails with a text that shows it.
    try:
        check_token(arguments.token or None)
    except ValueError as error:
        raise UsageError(str(error)) from None
    client = MonitorClient(arguments.address, arguments.token, arguments.timeout)
    query = {"sort": arguments.sort, "limit": str(arguments.connections)}
    if arguments.server is not None:
        query["server"] = arguments.server
    if arguments.once:
        return _show_once(client, query, arguments)
    if arguments.json:
        _watch(client, query, arguments, lambda status: _print(json.dumps(status)))
        return DONE
    with _view() as view:
        _watch(client, query, arguments, view.show)
    return DONE


def _view() -> View:
    return Screen() if sys.stdout.isatty() and has_rich() else Lines(sys.stdout)


def _show_once(client: MonitorClient, query: dict[str, str], arguments: argparse.Namespace) -> int:
    for attempt in range(RATES_AFTER):
        status = client.ask(query)
        _check_server(status, arguments.server)
        if _has_rates(status):
            break
        if attempt < RATES_AFTER - 1:
            time.sleep(status["monitor"]["interval"])
    _print(json.dumps(status) if arguments.json else full_text(status))
    return DONE


def _has_rates(status: dict[str, Any]) -> bool:
    at = status["columns"].index("messages")
    return all(
        server["points"] and server["points"][-1][at] is not None
        for server in status["servers"].values()
    )


def _watch(
    client: MonitorClient,
    query: dict[str, str],
    arguments: argparse.Namespace,
    show: Callable[[dict[str, Any]], object],
) -> None:
    is_known = is_lost = False
    while True:
        try:
            status = client.ask(query)
        except OSError as error:
            if not is_known:
                raise
            if not is_lost:
                print(f"not reachable: {error}; trying again", file=sys.stderr)
            is_lost = True
        else:
            _check_server(status, arguments.server)
            is_known, is_lost = True, False
            query = {**query, "since": str(status["monitor"]["time"] - RECENT)}
            show(status)
        time.sleep(arguments.interval)


def _check_server(status: dict[str, Any], name: str | None) -> None:
    if name is not None and name not in status["servers"]:
        names = ", ".join(map(ascii, status["servers"])) or "none"
        raise UsageError(f"this monitor has no server {name!r}; there is: {names}")


def _print(text: str) -> None:
    print(text, flush=True)


class MonitorClient:
    """Asks one monitor. Each question has a connection of its own: they are seconds apart."""

    def __init__(self, address: tuple[str, int], token: str | None, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def ask(self, query: dict[str, str]) -> dict[str, Any]:
        """Its status.

        Raises OSError when it cannot be reached, or does not answer within `timeout` seconds;
        CommandError for an answer that is none, or says no.
        """
        connection = http.client.HTTPConnection(*self._address, timeout=self._timeout)
        try:
            connection.request("GET", f"/status?{urlencode(query)}", headers=self._headers)
            answer = connection.getresponse()
            body = answer.read(LARGEST_ANSWER)
        except (http.client.HTTPException, ValueError) as error:
            raise CommandError(f"that is no monitor of tao's: {error!r}") from error
        finally:
            connection.close()
        if answer.status == http.HTTPStatus.UNAUTHORIZED:
            raise CommandError(
                "the monitor needs its token: set TAO_MONITOR_TOKEN, or pass --token"
            )
        if answer.status != http.HTTPStatus.OK:
            text = body[:300].decode("ascii", "replace").strip()
            raise CommandError(f"the monitor says no: {text!a}")
        try:
            status: dict[str, Any] = json.loads(body)
            # What all views rely on. The rest of it is as the monitor has made it.
            status["columns"].index("messages")
            status["servers"].values()
            status["monitor"]["interval"] += 0.0
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise CommandError("that is no monitor of tao's: its answer is none") from error
        return status
