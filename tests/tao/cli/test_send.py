"""`tao send`: what goes out, what is printed of what comes in, and the exit status."""

from __future__ import annotations

import io
import socket
import sys
from pathlib import Path

import pytest

from tao import (
    Codec,
    Context,
    HeartBeatMessage,
    LengthPrefixedCodec,
    LineCodec,
    TypeLengthValueCodec,
    WriteCloser,
    load_server_tls,
)
from tao.cli import main
from tests.support import Calls, Sample
from tests.tao.cli.support import serving, where
from tests.tls_support import Certificates


def send(*arguments: str) -> int:
    return main(["send", *arguments])


def test_the_reply_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as address:
        assert send(address, "Grüße") == 0
    assert capsys.readouterr() == ("Grüße\n", "")


@pytest.mark.parametrize(
    ("name", "codec"),
    [("tlv", TypeLengthValueCodec()), ("length", LengthPrefixedCodec()), ("line", LineCodec())],
)
def test_each_codec(name: str, codec: Codec, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(codec=codec) as address:
        assert send(address, "--codec", name, "hello", "--format", "json") == 0
    typed = '"type": 1, ' if name == "tlv" else ""
    assert capsys.readouterr() == (f'{{{typed}"text": "hello"}}\n', "")


@pytest.mark.parametrize(
    ("form", "printed"),
    [
        ("text", b"a\\xff\x00\n"),
        ("hex", b"61ff00\n"),
        ("raw", b"a\xff\x00"),
        ("json", b'{"type": 1, "hex": "61ff00"}\n'),
    ],
)
def test_bytes_that_are_no_text(
    form: str, printed: bytes, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with serving() as address:
        assert send(address, "--hex", "61 ff 00", "--format", form) == 0
    assert capfdbinary.readouterr() == (printed, b"")


def test_the_number_is_what_was_asked_for_and_that_of_a_reply_is_anything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(ctx: Context[Sample], _conn: WriteCloser) -> Sample:
        return Sample(-9, ctx.message.value)

    with serving(answer, number=7) as address:
        assert send(address, "--type", "7", "x", "--format", "json") == 0
    assert capsys.readouterr().out == '{"type": -9, "text": "x"}\n'


def test_a_heartbeat_is_no_reply(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(ctx: Context[Sample], conn: WriteCloser) -> Sample:
        conn.write(HeartBeatMessage())
        return ctx.message

    with serving(answer) as address:
        assert send(address, "x") == 0
    assert capsys.readouterr().out == "x\n"


def test_a_file_as_it_is(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    value = bytes(range(256)) * 1000  # more than one read's
    (tmp_path / "value").write_bytes(value)
    with serving() as address:
        assert send(address, "--file", str(tmp_path / "value"), "--format", "raw") == 0
    assert capfdbinary.readouterr().out == value


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_standard_input_as_a_line(
    end: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"typed" + end)))
    with serving(codec=LineCodec()) as address:
        assert send(address, "-", "--codec", "line") == 0
    assert capsys.readouterr().out == "typed\n"


def test_several_replies(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(ctx: Context[Sample], conn: WriteCloser) -> Sample:
        conn.write(Sample(1, b"one"))
        conn.write(Sample(1, b"two"))
        return Sample(1, b"three")

    with serving(answer) as address:
        assert send(address, "x", "--count", "3") == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_no_reply(capsys: pytest.CaptureFixture[str]) -> None:
    arrived: Calls[bytes] = Calls()

    def keep(ctx: Context[Sample], _conn: WriteCloser) -> None:
        arrived.add(ctx.message.value)

    with serving(keep) as address:
        assert send(address, "x" * 100_000, "--no-reply") == 0
        assert arrived.wait() == [b"x" * 100_000]
    assert capsys.readouterr() == ("", "")


def test_no_reply_in_time_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda _ctx, _conn: None) as address:
        assert send(address, "x", "--timeout", "0.1") == 1
    assert capsys.readouterr() == ("", f"tao send: {address} has not sent a reply in 0.1 s\n")


def test_an_end_before_the_reply_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    def leave(ctx: Context[Sample], conn: WriteCloser) -> Sample:
        conn.close()
        return ctx.message

    with serving(leave) as address:
        assert send(address, "x", "--count", "2") == 1
    output, errors = capsys.readouterr()
    assert output == "x\n"
    assert errors.startswith(f"tao send: {address} has ended the connection before reply 2 of 2:")


def test_nobody_there_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = where(free.getsockname())
    assert send(address, "x") == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert f"not connected to {address}" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["localhost", "x"], "has no port"),
        (["localhost:0", "x"], "from 1 to 65535"),
        (["localhost:1", "6", "--hex"], "--hex: expected pairs of digits, not '6'"),
        (["localhost:1", "x", "--type", "0"], "0 is the heartbeat"),
        (["localhost:1", "x", "--type", "one"], "expected a message number, an int32, not 'one'"),
        (["localhost:1", "x", "--hex", "--file"], "not allowed with argument --hex"),
        (["localhost:1", "x", "--insecure", "--tls-ca", "ca"], "leave it out, or --tls-ca"),
        (["unix:/nowhere", "x", "--tls"], "pass --tls-name"),
    ],
)
def test_what_makes_no_sense(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert send(*arguments) == 2
    errors = capsys.readouterr().err
    assert text in errors
    assert errors.count("\n") == 1


def test_what_the_codec_cannot_say_makes_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(codec=LineCodec()) as address:
        assert send(address, "two\nlines", "--codec", "line") == 2
    assert "would arrive in pieces" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert send("localhost:1", "--file", "/nowhere") == 1
    assert "/nowhere" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no Unix sockets")
def test_a_unix_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "socket")
    with serving(address=path):
        assert send(f"unix:{path}", "x") == 0
    assert capsys.readouterr().out == "x\n"


def test_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    certificates = Certificates(tmp_path)
    with serving(tls=load_server_tls(certificates.server_file)) as address:
        assert send(address, "trusted", "--tls-ca", str(certificates.ca_file)) == 0
        assert send(address, "unknown", "--tls") == 1
        assert send(address, "whoever", "--insecure") == 0
        assert send(address, "x", "--tls-ca", str(certificates.ca_file), "--tls-name", "other") == 1
        monkeypatch.setenv("TAO_TLS_CA", str(certificates.ca_file))
        assert send(address, "by variable") == 0
    output, errors = capsys.readouterr()
    assert output == "trusted\nwhoever\nby variable\n"
    assert errors.count("CERTIFICATE_VERIFY_FAILED") == 2
