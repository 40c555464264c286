"""`tao send`: one message to a server, and the reply printed.

Owns where the message comes from, how long to wait, and how a reply is printed. Replies are read on the
client's loop and printed on the main thread.
"""

from __future__ import annotations

import argparse
import json
import logging
import queue
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reactor import CloseReason
from tao.cli.environment import add_option
from tao.cli.outcome import DONE, CommandError, UsageError
from tao.cli.server_options import add_server_options, client_tls, make_codec
from tao.client import ClientConn
from tao.codec import Codec, Frame, Header, check_number
from tao.context import Context
from tao.errors import TaoError
from tao.interfaces import WriteCloser
from tao.message import HEARTBEAT, Message
from tao.registry import MessageRegistry
from tao.terminal import CommandLine, count, printable, seconds

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "send"
HELP = "send one message to a server, and print the reply"

FORMS = ("text", "hex", "raw", "json")

LINGER = 1.0
"""Seconds in which a server may end the connection in good order, when all is over."""

_NUMBER = struct.Struct("<i")


@dataclass(frozen=True, slots=True)
class Sent:
    """A message of any number and value."""

    message_number: int
    value: bytes

    def serialize(self) -> bytes:
        """The value, as it is."""
        return self.value


@dataclass(frozen=True, slots=True)
class Reply:
    """A message that has come; also what a frame of any number is decoded to."""

    number: int
    value: bytes


class AnyNumber:
    """Another codec, whose frames all arrive under one number: a registry has no entry for "any".

    The number that was on the wire stands before the value. Heartbeats stay what they are. Any thread.
    """

    NUMBER = 1

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def encode(self, message: Message) -> bytes:
        """As the other does."""
        return self._codec.encode(message)

    def decode(self, data: bytes) -> Iterator[Frame]:
        """As the other does."""
        for number, value, end in self._codec.decode(data):
            if number == HEARTBEAT:
                yield number, value, end
            else:
                yield self.NUMBER, _NUMBER.pack(number) + value, end

    def header(self, data: bytes) -> Header | None:
        """As the other does: the sizes are those on the wire."""
        header = self._codec.header(data)
        if header is None or header[0] == HEARTBEAT:
            return header
        return self.NUMBER, *header[1:]

    def __repr__(self) -> str:
        return f"AnyNumber({self._codec!r})"


def add_arguments(parser: CommandLine) -> None:
    """ADDRESS, the message, and what to wait for."""
    add_server_options(parser)
    parser.add_argument(
        "message", metavar="MESSAGE", help="the text; `-` reads standard input to its end"
    )
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument(
        "--hex", action="store_true", help="MESSAGE is the bytes, in hexadecimal digits"
    )
    sources.add_argument(
        "--file",
        action="store_true",
        help="MESSAGE is the name of a file: send what it has, as it is",
    )
    add_option(
        parser,
        "--type",
        metavar="N",
        variable="TAO_TYPE",
        convert=message_number,
        default=1,
        help="the message number, which the codec `tlv` sends",
    )
    add_option(
        parser,
        "--timeout",
        metavar="SECONDS",
        variable="TAO_TIMEOUT",
        convert=seconds,
        default=5.0,
        help="for everything: connecting, sending, and the replies",
    )
    replies = parser.add_mutually_exclusive_group()
    replies.add_argument(
        "--count",
        metavar="N",
        type=count,
        default=1,
        help="how many replies to wait for (default: 1)",
    )
    replies.add_argument("--no-reply", action="store_true", help="wait until it has been sent only")
    add_option(
        parser,
        "--format",
        variable="TAO_FORMAT",
        choices=FORMS,
        default="text",
        help="how to print replies: as lines of text, of hexadecimal digits, or of JSON; or their bytes, "
        "with nothing added",
    )
    parser.epilog = """\
examples:
  tao send localhost:12345 'hello'
  tao send [::1]:12345 --type 10 0100000000000000f03f --hex --format hex
  date | tao send unix:/run/lines.sock - --codec line --timeout 1

Of the lines codec's messages, the newline at the end is the codec's own: one that a file or standard
input ends with is left out. Status 1: no connection, or fewer replies than asked for."""


def message_number(text: str) -> int:
    """The type of `--type`."""
    try:
        number = check_number(int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected a message number, an int32, not {text!r}"
        ) from error
    if number == HEARTBEAT:
        raise argparse.ArgumentTypeError(f"{HEARTBEAT} is the heartbeat: choose another number")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Send, wait, print; returns the exit status."""
    logging.basicConfig(level=logging.ERROR)  # what ends the connection is said here, once
    message = Sent(arguments.type, read_message(arguments))
    deadline = time.monotonic() + arguments.timeout
    arrived: queue.SimpleQueue[Reply | CloseReason] = queue.SimpleQueue()
    registry = MessageRegistry()

    def keep(ctx: Context[Reply], _conn: WriteCloser) -> None:
        arrived.put(ctx.message)

    registry.register(AnyNumber.NUMBER, decode, keep, inline=True)
    client = ClientConn(
        arguments.address,
        registry=registry,
        codec=AnyNumber(make_codec(arguments)),
        on_close=lambda _conn, reason: arrived.put(reason),
        connect_timeout=arguments.timeout,
        frame_timeout=arguments.timeout,
        tls=client_tls(arguments),
        server_hostname=arguments.tls_name,
    )
    client.start()
    try:
        if not client.wait_connected(_remaining(deadline)):
            raise CommandError(f"not connected to {client.name} after {arguments.timeout:g} s")
        _write(client, message)
        if arguments.no_reply:
            return _finish(client, deadline)
        return _print_replies(arrived, arguments, deadline, client.name)
    finally:
        client.close()
        if client.wait_closed(LINGER) is None:
            client.abort()
            client.wait_closed()


def _write(client: ClientConn, message: Sent) -> None:
    try:
        client.write(message)
    except TaoError:
        raise
    except ValueError as error:  # the codec's: a newline in a line, say
        raise UsageError(str(error)) from error


def decode(data: bytes) -> Reply:
    """Of what AnyNumber gives."""
    return Reply(_NUMBER.unpack_from(data)[0], data[_NUMBER.size :])


def read_message(arguments: argparse.Namespace) -> bytes:
    """From where the command line says. Raises UsageError for what is no hexadecimal, OSError."""
    text: str = arguments.message
    if arguments.hex:
        try:
            return bytes.fromhex(text)
        except ValueError as error:
            raise UsageError(f"--hex: expected pairs of digits, not {text!r}") from error
    if arguments.file:
        value = Path(text).read_bytes()
    elif text == "-":
        value = sys.stdin.buffer.read()
    else:
        return text.encode(errors="surrogateescape")  # the shell's bytes, as they were
    return value.removesuffix(b"\n").removesuffix(b"\r") if arguments.codec == "line" else value


def _remaining(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _finish(client: ClientConn, deadline: float) -> int:
    """Wait until all has been sent, and the server has been told that this is the end."""
    client.close()
    reason = client.wait_closed(_remaining(deadline))
    if reason is None:
        raise CommandError(f"{client.name} has not taken the message")
    if reason.unsent or reason.error is not None:
        raise CommandError(f"{client.name} may not have got the message: {reason}")
    return DONE


def _print_replies(
    arrived: queue.SimpleQueue[Reply | CloseReason],
    arguments: argparse.Namespace,
    deadline: float,
    name: str,
) -> int:
    for number in range(arguments.count):
        missing = f"reply {number + 1} of {arguments.count}" if arguments.count > 1 else "a reply"
        try:
            reply = arrived.get(timeout=_remaining(deadline))
        except queue.Empty:
            raise CommandError(
                f"{name} has not sent {missing} in {arguments.timeout:g} s"
            ) from None
        if isinstance(reply, CloseReason):
            raise CommandError(f"{name} has ended the connection before {missing}: {reply}")
        print_reply(reply, arguments.format, typed=arguments.codec == "tlv")
    return DONE


def print_reply(reply: Reply, form: str, *, typed: bool) -> None:
    """On standard output, at once. `typed`: whether the number was on the wire."""
    if form == "raw":
        sys.stdout.buffer.write(reply.value)
        sys.stdout.buffer.flush()
        return
    if form == "hex":
        line = reply.value.hex()
    elif form == "json":
        line = json.dumps(({"type": reply.number} if typed else {}) | _json_value(reply.value))
    else:
        line = reply.value.decode(errors="backslashreplace")
        if sys.stdout.isatty():
            line = printable(line, lines=True)
    print(line, flush=True)


def _json_value(value: bytes) -> dict[str, str]:
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"hex": value.hex()}
