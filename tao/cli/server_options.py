"""The server that a command talks to: its address, its codec and its TLS, as the command line says them.

Contents: CODECS, remote, add_server_options, add_tls_options, make_codec, client_tls.
"""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Callable

from tao.address import parse_address
from tao.cli.environment import add_option, add_switch
from tao.cli.outcome import UsageError
from tao.codec import MAX_LENGTH, Codec, TypeLengthValueCodec
from tao.length_prefixed_codec import LengthPrefixedCodec
from tao.line_codec import LineCodec
from tao.terminal import CommandLine
from tao.tls import load_client_tls

__all__ = ["CODECS", "add_server_options", "add_tls_options", "client_tls", "make_codec", "remote"]

CODECS: dict[str, Callable[[], Codec]] = {
    "tlv": lambda: TypeLengthValueCodec(MAX_LENGTH),
    "length": lambda: LengthPrefixedCodec(max_length=MAX_LENGTH),
    "line": lambda: LineCodec(max_length=MAX_LENGTH),
}


def remote(text: str) -> tuple[str, int] | str:
    """The type of an argument: where a server listens. Raises ArgumentTypeError for what is none."""
    try:
        address = parse_address(text, first_port=1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if isinstance(address, tuple) and not address[0]:
        return "localhost", address[1]  # the name of this machine, which resolvers want to hear
    return address


def add_server_options(parser: CommandLine) -> None:
    """ADDRESS, `--codec`, and those of `add_tls_options`."""
    parser.add_argument(
        "address",
        metavar="ADDRESS",
        type=remote,
        help="where it listens: HOST:PORT, [IPV6]:PORT, :PORT of this machine, or unix:PATH",
    )
    add_option(
        parser,
        "--codec",
        variable="TAO_CODEC",
        choices=tuple(CODECS),
        default="tlv",
        help="how frames stand on the wire: type, length and value; length and value; or lines",
    )
    add_tls_options(parser)


def add_tls_options(parser: CommandLine) -> None:
    """`--tls`, `--tls-ca`, `--tls-name` and `--insecure`, for `client_tls`."""
    group = parser.add_argument_group("TLS")
    add_switch(group, "--tls", variable="TAO_TLS", help="speak TLS; the next three imply it")
    add_option(
        group,
        "--tls-ca",
        metavar="FILE",
        variable="TAO_TLS_CA",
        help="trust what these certificates, PEM, have signed, and not what the system trusts",
    )
    add_option(
        group,
        "--tls-name",
        metavar="NAME",
        variable="TAO_TLS_NAME",
        help="the name in the server's certificate, if it is not the address's host",
    )
    add_switch(
        group,
        "--insecure",
        variable="TAO_INSECURE",
        help="take any certificate: anybody in between can read and change what is sent",
    )


def make_codec(arguments: argparse.Namespace) -> Codec:
    """That of `--codec`."""
    return CODECS[arguments.codec]()


def client_tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """What the options of TLS ask for; None: plain TCP.

    Raises UsageError for what makes no sense, OSError for a file that cannot be read or used.
    """
    wanted = arguments.tls_ca is not None or arguments.tls_name is not None or arguments.insecure
    if not (arguments.tls or wanted):
        return None
    if arguments.insecure and arguments.tls_ca is not None:
        raise UsageError("--insecure takes any certificate: leave it out, or --tls-ca")
    nameless = arguments.tls_name is None and isinstance(arguments.address, str)
    if nameless and not arguments.insecure:
        raise UsageError("a Unix socket has no name to find in a certificate: pass --tls-name")
    return load_client_tls(arguments.tls_ca, verify=not arguments.insecure)
