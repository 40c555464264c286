"""`tao chat`: a room that is opened and joined, each in a process of its own."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tao.cli import main
from tests.examples.support import Peer, Program
from tests.tls_support import Certificates


@pytest.mark.skipif(sys.platform == "win32", reason="ends the server by a signal")
def test_a_room_and_who_joins_it() -> None:
    with Program(["-m", "tao", "chat", "--serve", "127.0.0.1:0"]) as room:
        address = room.address()
        host, port = address
        with (
            Program(["-m", "tao", "chat", f"{host}:{port}", "--name", "Ann"]) as ann,
            Peer(address) as peer,
        ):
            ann.wait_for("Connected to")
            ann.enter("hello\n")
            assert peer.receive() == (1, b"Ann: hello")
            peer.send(1, b"\x1b[2Jhello, Ann")
            ann.wait_for(r"\\x1b\[2Jhello, Ann\n")
            ann.enter("bye\n")
            assert ann.wait() == 0
            assert ann.errors == ""
        room.signal(signal.SIGTERM)
        assert room.wait() == 0
        assert room.errors == ""


@pytest.mark.skipif(sys.platform == "win32", reason="ends the server by a signal")
def test_a_room_with_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificates = Certificates(tmp_path)
    command = ["-m", "tao", "chat", "--serve", "127.0.0.1:0"]
    with Program([*command, "--tls-cert", str(certificates.server_file)]) as room:
        _, port = room.address()
        trust = ["--tls-ca", str(certificates.ca_file)]
        assert main(["send", f"localhost:{port}", "hello", "--no-reply", *trust]) == 0
        room.wait_for("has left: closed by the peer")
        room.signal(signal.SIGINT)
        assert room.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["localhost"], "has no port"),
        (["localhost:0"], "from 1 to 65535"),
        (["--serve", "localhost:70000"], "from 0 to 65535"),
        (["--serve", "--tls"], "needs --tls-cert"),
        (["--serve", "--tls-key", "key.pem"], "needs --tls-cert"),
    ],
)
def test_what_makes_no_sense(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_a_variable_says_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAO_CHAT", "nowhere")
    assert main(["chat"]) == 2
    assert "'nowhere' has no port" in capsys.readouterr().err


def test_nobody_there_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "127.0.0.1:1"]) == 1
    assert "not connected to 127.0.0.1:1" in capsys.readouterr().err
