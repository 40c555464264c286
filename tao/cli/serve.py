"""`tao serve`: a service on one or several processes.

Owns its options and what is opened before the workers start; the rest is the Supervisor's.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

from reactor import listen
from tao.address import format_address, parse_address
from tao.cli.environment import add_option, add_switch
from tao.cli.outcome import CommandError, UsageError
from tao.processes import Activation, Listeners, Notifier, Plan, Supervisor
from tao.processes.logs import LEVELS, set_up_logging
from tao.processes.target import check_target
from tao.proxy_protocol import TrustedProxies
from tao.terminal import CommandLine, count, say, seconds

__all__ = ["HELP", "NAME", "add_arguments", "run"]

logger: logging.Logger = logging.getLogger("tao")

NAME = "serve"
HELP = "serve an application, on as many processes as you like"

DEFAULT_ADDRESS = "127.0.0.1:12345"

INHERITED = "fd:"
"""Before the name of a socket of systemd's, where an address is asked for."""

MONITOR_BACKLOG = 32

EPILOG = """\
examples:
  tao serve tao.examples.readme_chat:server
  tao serve shop.main:make_server --bind :7000 --bind unix:/run/shop.sock --workers auto
  TAO_WORKERS=4 TAO_BIND='[::]:7000' tao serve shop.main:make_server

signals:
  SIGTERM, SIGINT   stop in good order, within the grace; a second one: at once; a third: by force
  SIGHUP            reload: new processes load the application and accept, then the old ones finish

Of systemd it takes sockets (LISTEN_FDS), and tells it by NOTIFY_SOCKET when it is ready, reloads and stops;
with WatchdogSec= it gives signs of life for as long as all workers do.
"""

Address: TypeAlias = tuple[str, int] | str


def add_arguments(parser: CommandLine) -> None:
    """See `tao.cli.main.Command`."""
    parser.epilog = EPILOG
    parser.add_argument(
        "target",
        metavar="MODULE:SERVER",
        type=_checked(check_target),
        help="a tao.Server, or a function without arguments that returns one, by its module and its name",
    )
    add_option(
        parser,
        "--bind",
        variable="TAO_BIND",
        metavar="ADDRESS",
        convert=_checked(_addresses),
        repeated=True,
        help="where to listen: HOST:PORT, [HOST]:PORT, :PORT, unix:PATH, or fd:NAME for a socket of "
        "systemd's; may be repeated, or hold several with commas between them; by default "
        f"{DEFAULT_ADDRESS}, or systemd's sockets if there are any",
    )
    add_option(
        parser,
        "--workers",
        variable="TAO_WORKERS",
        metavar="N",
        convert=_workers,
        default=1,
        help="how many processes; auto: one for each processor",
    )
    add_option(
        parser,
        "--tls-cert",
        variable="TAO_TLS_CERT",
        metavar="FILE",
        help="speak TLS, with this certificate, PEM; it is read again at every reload",
    )
    add_option(
        parser,
        "--tls-key",
        variable="TAO_TLS_KEY",
        metavar="FILE",
        help="its key, if it is not in the same file",
    )
    add_option(
        parser,
        "--monitor",
        variable="TAO_MONITOR",
        metavar="PORT",
        convert=_port,
        help="show the numbers of the first worker over HTTP at this port of 127.0.0.1, of the second at "
        "the next, and so on; 0: at ports that the system chooses",
    )
    add_option(
        parser,
        "--socket-mode",
        variable="TAO_SOCKET_MODE",
        metavar="MODE",
        convert=_checked(_mode),
        help="the mode of a Unix socket's file, in octal, such as 660; without, the umask decides",
    )
    add_switch(
        parser,
        "--proxy-protocol",
        variable="TAO_PROXY_PROTOCOL",
        help="those who connect are proxies, and say first for whom, by the PROXY protocol, version 1 or 2",
    )
    add_option(
        parser,
        "--trusted-proxies",
        variable="TAO_TRUSTED_PROXIES",
        metavar="NETWORKS",
        convert=_checked(_networks),
        repeated=True,
        help="where proxies connect from, such as 10.0.0.0/8,::1; others are refused",
    )
    _add_times(parser)
    add_option(
        parser,
        "--log-level",
        variable="TAO_LOG_LEVEL",
        choices=LEVELS,
        default="info",
        help="log from this level on, to standard error",
    )
    add_option(
        parser,
        "--pid-file",
        variable="TAO_PID_FILE",
        metavar="FILE",
        help="write the parent's process number there while it runs",
    )
    add_option(
        parser,
        "--app-dir",
        variable="TAO_APP_DIR",
        metavar="FOLDER",
        default=".",
        help="import the application from there",
    )


def _add_times(parser: CommandLine) -> None:
    add_option(
        parser,
        "--grace",
        variable="TAO_GRACE",
        metavar="SECONDS",
        convert=seconds,
        default=10.0,
        help="what connections get to finish in when their process stops, at a reload too",
    )
    add_option(
        parser,
        "--start-timeout",
        variable="TAO_START_TIMEOUT",
        metavar="SECONDS",
        convert=seconds,
        default=30.0,
        help="in which a worker must be ready",
    )
    add_option(
        parser,
        "--backlog",
        variable="TAO_BACKLOG",
        metavar="N",
        convert=count,
        default=1024,
        help="connections that may wait to be accepted, for each listening socket",
    )


def run(arguments: argparse.Namespace) -> int:
    """See `tao.cli.main.Command`."""
    if sys.platform == "win32":
        raise CommandError("processes that share sockets are not to be had on this system")
    if arguments.tls_key is not None and arguments.tls_cert is None:
        raise UsageError("a key needs its certificate: give --tls-cert too")
    if arguments.trusted_proxies and not arguments.proxy_protocol:
        raise UsageError("--trusted-proxies has a meaning with --proxy-protocol only")
    set_up_logging(arguments.log_level)
    plan = Plan(
        target=arguments.target,
        workers=arguments.workers,
        grace=arguments.grace,
        start_timeout=arguments.start_timeout,
        app_dir=os.path.abspath(arguments.app_dir),
        log_level=arguments.log_level,
        tls_certificate=arguments.tls_cert,
        tls_key=arguments.tls_key,
        proxy_protocol=arguments.proxy_protocol,
        trusted_proxies=tuple(arguments.trusted_proxies or ()),
    )
    environment = dict(os.environ)  # the workers': without what systemd has said to us
    with ExitStack() as stack:
        notifier = Notifier(environment)
        stack.callback(notifier.close)
        listeners = _listeners(arguments, _activation(environment))
        stack.callback(listeners.close)
        monitors = _monitors(arguments.monitor, plan.workers, stack)
        where = ", ".join(map(format_address, listeners.addresses))
        supervisor = Supervisor(
            plan,
            listeners,
            environment=environment,
            notifier=notifier,
            monitors={slot: sock.fileno() for slot, sock in enumerate(monitors)},
            on_serving=lambda: _announce(f"listening on {where}"),
        )
        if arguments.pid_file is not None:
            stack.enter_context(_pid_file(Path(arguments.pid_file)))
        status = supervisor.run()
    if supervisor.failure is not None:
        raise CommandError(supervisor.failure)
    return status


def _announce(text: str) -> None:
    """Print where the service is. That nobody can read it is no reason not to serve."""
    try:
        say(text)
    except OSError as error:
        logger.warning("cannot print %r: %s", text, error)


def _activation(environment: dict[str, str]) -> Activation:
    try:
        return Activation.take(environment)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _listeners(arguments: argparse.Namespace, activation: Activation) -> Listeners:
    """Opened: what is asked for, or else what systemd has given, or else the default."""
    texts: list[str] = arguments.bind or (
        [f"{INHERITED}{name}" for name, _ in activation.sockets] or [DEFAULT_ADDRESS]
    )
    inherited: dict[int, socket.socket] = {}
    addresses: list[Address] = []
    for text in texts:
        if not text.startswith(INHERITED):
            addresses.append(parse_address(text))
            continue
        name = text.removeprefix(INHERITED)
        found = activation.named(name)
        if not found:
            names = ", ".join(repr(each) for each, _ in activation.sockets) or "none at all"
            raise CommandError(f"there is no socket {name!r} of systemd's; it has given {names}")
        inherited.update((sock.fileno(), sock) for sock in found)
    for name, sock in activation.sockets:
        if sock.fileno() not in inherited:
            logger.warning("systemd's socket %r is not used: no --bind %s%s", name, INHERITED, name)
            sock.close()
    return Listeners(
        addresses,
        list(inherited.values()),
        slots=arguments.workers,
        backlog=arguments.backlog,
        mode=arguments.socket_mode,
    )


def _monitors(first: int | None, workers: int, stack: ExitStack) -> Sequence[socket.socket]:
    """A socket for each worker's numbers, if they are asked for. After port 0 comes port 0."""
    if first is None:
        return ()
    if first + workers - 1 > 65535:
        raise UsageError(f"there are no {workers} ports from {first} on: choose a lower --monitor")
    opened = []
    for slot in range(workers):
        sock = listen(("127.0.0.1", first and first + slot), backlog=MONITOR_BACKLOG)
        stack.callback(sock.close)
        opened.append(sock)
    return opened


@contextmanager
def _pid_file(path: Path) -> Iterator[None]:
    """Holds this process's number while it lasts, whole from the beginning."""
    text = f"{os.getpid()}\n"
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(text, encoding="ascii")
    new.replace(path)
    try:
        yield
    finally:
        try:
            if path.read_text(encoding="ascii") == text:  # and not that of one who came after us
                path.unlink()
        except OSError as error:
            logger.warning("the file %s could not be removed: %s", path, error)


def _checked(convert: Callable[[str], object]) -> Callable[[str], object]:
    """`convert` as the type of an option: argparse shows the text of this error, and of no other."""

    def converted(text: str) -> object:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted


def _addresses(text: str) -> list[str]:
    """The addresses in a text, each of which has been read once to see that it can be."""
    texts = [each.strip() for each in text.split(",")]
    for each in texts:
        if not each.startswith(INHERITED):
            parse_address(each)
    return texts


def _networks(text: str) -> list[str]:
    texts = [each.strip() for each in text.split(",")]
    TrustedProxies(texts)  # which says what is wrong
    return texts


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ValueError(f"a file's mode is from 0 to 777, in octal, not {text!r}")
    return mode


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _workers(text: str) -> int:
    return _processors() if text == "auto" else count(text)


def _processors() -> int:
    """Those that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return os.cpu_count() or 1 if affinity is None else len(affinity(0))
