"""`tao chat`: join a room from the terminal, or open one.

Owns the command line; the room and who joins it are the example's, `tao.examples.chat`.
"""

from __future__ import annotations

import argparse
import logging
import ssl

from tao.address import parse_address
from tao.cli.environment import add_option
from tao.cli.outcome import UsageError
from tao.cli.server_options import add_tls_options, client_tls, remote
from tao.examples.chat import join_room, open_room
from tao.terminal import CommandLine
from tao.tls import load_server_tls

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "chat"
HELP = "join a chat room from the terminal, or open one"

DEFAULT_ADDRESS = "127.0.0.1:12345"


def add_arguments(parser: CommandLine) -> None:
    """ADDRESS, who joins, or that a room is opened."""
    add_option(
        parser,
        "address",
        metavar="ADDRESS",
        nargs="?",
        variable="TAO_CHAT",
        default=DEFAULT_ADDRESS,
        help="where the room is: HOST:PORT, [IPV6]:PORT, :PORT, or unix:PATH",
    )
    parser.add_argument("--serve", action="store_true", help="open a room, until Ctrl-C")
    add_option(
        parser, "--name", variable="TAO_NAME", help="put NAME and a colon before each line you type"
    )
    add_tls_options(parser)
    server = parser.add_argument_group("TLS of the room that --serve opens")
    add_option(
        server,
        "--tls-cert",
        metavar="FILE",
        variable="TAO_TLS_CERT",
        help="speak TLS with this certificate, PEM, and the chain behind it",
    )
    add_option(
        server,
        "--tls-key",
        metavar="FILE",
        variable="TAO_TLS_KEY",
        help="its key, if it is not in the same file",
    )
    parser.epilog = """\
examples:
  tao chat --serve
  tao chat --name Ann
  tao chat --serve localhost:0 --tls-cert cert.pem

Each line that you type is a message; `bye`, or the end of the input, ends it."""


def run(arguments: argparse.Namespace) -> int:
    """Serve, or join; returns the exit status."""
    logging.basicConfig(level=logging.WARNING if arguments.serve else logging.ERROR)
    try:
        if arguments.serve:
            return open_room(parse_address(arguments.address), tls=_server_tls(arguments))
        arguments.address = remote(arguments.address)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UsageError(str(error)) from error
    return join_room(
        arguments.address,
        arguments.name,
        tls=client_tls(arguments),
        server_hostname=arguments.tls_name,
    )


def _server_tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if arguments.tls_cert is None:
        if arguments.tls or arguments.tls_key is not None:
            raise UsageError("a room that speaks TLS needs --tls-cert")
        return None
    return load_server_tls(arguments.tls_cert, arguments.tls_key)
