"""`tao monitor`: a server's numbers on a terminal."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import tao.monitor.sampler
from tao import MessageRegistry, Server
from tao.cli import main
from tao.cli.monitor_view import has_rich, printable, show_count, show_seconds, show_size
from tao.monitor import Monitor, monitor_on
from tests.examples.support import ROOT, Program
from tests.support import DEADLINE, LOCAL, Peer, Sample, as_bytes
from tests.tao.monitor.support import NOTHING, TOKEN, unused_address


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    """Of a server with one connection that has sent something."""
    monkeypatch.setattr(tao.monitor.sampler, "INTERVAL", 0.05)
    monkeypatch.delenv("TAO_MONITOR_TOKEN", raising=False)
    registry = MessageRegistry()
    registry.register(1, as_bytes, lambda context, conn: Sample(1, context.message))
    server = Server(registry=registry)
    with (
        server.running(LOCAL) as address,
        monitor_on(0) as monitor,
        Peer(address) as peer,
    ):
        peer.send_frame(1, b"hello")
        peer.receive_frame()
        monitor.add("echo", server.metrics)
        yield monitor


def where(monitor: Monitor) -> str:
    """What is typed."""
    return f"127.0.0.1:{monitor.address[1]}"


def test_once(monitor: Monitor, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", where(monitor), "--once"]) == 0
    text = capsys.readouterr().out
    head, connections, *_ = text.splitlines()
    assert head.startswith("echo  up ")
    assert "  on 127.0.0.1:" in head
    assert connections == "connections 1 of 1000, 0/s new; messages 0/s, handled 0/s"
    assert "connections of echo\npeer " in text
    assert text.count("OPEN") == 1


def test_once_as_json(monitor: Monitor, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", f"http://{where(monitor)}/", "--once", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["shown"] == "echo"
    assert found["servers"]["echo"]["points"][-1][found["columns"].index("messages")] == 0


def test_a_server_and_an_order_may_be_chosen(
    monitor: Monitor, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor.add("other", lambda: NOTHING)
    options = ["--server", "echo", "--sort", "idle", "--connections", "1"]
    assert main(["monitor", where(monitor), "--once", "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["shown"], found["connections"]["sort"]) == ("echo", "idle")
    assert len(found["connections"]["rows"]) == 1

    assert main(["monitor", where(monitor), "--once", "--server", "nobody"]) == 2
    assert "no server 'nobody'; there is: 'echo', 'other'" in capsys.readouterr().err


def test_the_token(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, monitor: Monitor
) -> None:
    with monitor_on(0, token=TOKEN) as guarded:
        guarded.add("other", lambda: NOTHING)
        assert main(["monitor", where(guarded), "--once"]) == 1
        assert "set TAO_MONITOR_TOKEN, or pass --token" in capsys.readouterr().err
        assert main(["monitor", where(guarded), "--once", "--token", "x" * 20]) == 1
        assert main(["monitor", where(guarded), "--once", "--token", TOKEN]) == 0
        monkeypatch.setenv("TAO_MONITOR_TOKEN", TOKEN)
        assert main(["monitor", where(guarded), "--once"]) == 0


@pytest.mark.parametrize("token", [TOKEN + "\n", "日本語" * 8, "short"])
def test_a_token_that_no_monitor_has_is_not_sent_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    with monitor_on(0, token=TOKEN) as guarded:
        monkeypatch.setenv("TAO_MONITOR_TOKEN", token)
        assert main(["monitor", where(guarded), "--once"]) == 2
        said = capsys.readouterr().err
        assert "a token must be 16 or more characters of ASCII" in said
        assert token.strip() not in said


def test_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    host, port = unused_address()
    assert main(["monitor", f"{host}:{port}"]) == 1
    assert "refused" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["", "nowhere", "127.0.0.1:0", "unix:/run/x", "https://x:1"])
def test_an_address_that_is_none(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", address]) == 2
    assert "tao monitor: argument ADDRESS: " in capsys.readouterr().err


HTTP = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\x01\x02\r\n\r\n",
        HTTP + b"<html>",
        HTTP + b"[]",
        HTTP + b"{}",
        HTTP + b'{"columns": [], "servers": {}, "monitor": {"interval": 1}}',
        HTTP + b'{"columns": ["messages"], "servers": 1, "monitor": {"interval": 1}}',
        b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n\x1b[31mnot here",
    ],
)
def test_what_answers_is_no_monitor(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(LOCAL) as listener:

        def serve() -> None:
            with Peer.accept(listener) as peer:
                peer.sock.recv(4096)
                peer.send(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        host, port = listener.getsockname()
        assert main(["monitor", f"{host}:{port}", "--once"]) == 1
        thread.join(DEADLINE)
    error = capsys.readouterr().err
    assert error.startswith("tao monitor: ")
    assert error.count("\n") == 1
    assert "\x1b" not in error


@pytest.mark.skipif(sys.platform == "win32", reason="ends the program by a signal")
def test_it_goes_on_over_a_restart_until_ctrl_c(monitor: Monitor) -> None:
    address = where(monitor)
    with Program(["-m", "tao", "monitor", address, "--interval", "0.05"]) as program:
        program.wait_for(r"server .*connections .*lag .*errors\necho ")
        monitor.close()
        assert_soon(lambda: "not reachable: " in program.errors)
        with monitor_on(monitor.address[1]) as again:
            again.add("another", lambda: NOTHING)
            program.wait_for("\nanother ")
        program.signal(signal.SIGINT)
        assert program.wait() == 130
        assert program.errors.count("not reachable") in (1, 2)


def assert_soon(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.skipif(not has_rich(), reason="needs rich: pip install 'tao[cli]'")
def test_a_terminal_shows_all_of_it(monitor: Monitor) -> None:
    monitor.add("[red]other[/red]", lambda: NOTHING)
    with ExitStack() as stack:
        ours, theirs = os.openpty()
        stack.callback(os.close, ours)
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "60"}
        process = subprocess.Popen(
            [sys.executable, "-m", "tao", "monitor", where(monitor), "--interval", "0.05"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
        )
        os.close(theirs)
        assert process.stderr is not None
        stack.enter_context(process.stderr)
        stack.callback(process.wait)
        stack.callback(process.kill)
        shown = ""
        end = time.monotonic() + DEADLINE
        while not all(text in shown for text in ("[red]other[/red]", "slowest handlers", "OPEN")):
            assert time.monotonic() < end, shown
            if select.select([ours], [], [], 0.1)[0]:
                shown += os.read(ours, 65_536).decode("utf-8", "replace")
        process.send_signal(signal.SIGINT)
        while process.poll() is None:
            assert time.monotonic() < end
            if select.select([ours], [], [], 0.02)[0]:
                try:
                    os.read(ours, 65_536)
                except OSError:
                    break  # its end of the terminal is closed: EIO
        assert process.wait(DEADLINE) == 130
        assert process.stderr.read() == b""


def test_what_comes_from_peers_moves_no_cursor() -> None:
    assert printable("a\x1b[2Jb\n\u202ec\ud800é") == "a\\x1b[2Jb\\n\\u202ec\\ud800é"


@pytest.mark.parametrize(
    ("show", "value", "expected"),
    [
        (show_count, None, "-"),
        (show_count, 0, "0"),
        (show_count, 0.25, "0.25"),
        (show_count, 999, "999"),
        (show_count, 12_345, "12.3k"),
        (show_count, 5e12, "5000G"),
        (show_size, 1023, "1023 B"),
        (show_size, 1536, "1.50 KiB"),
        (show_seconds, None, "-"),
        (show_seconds, 0, "0 s"),
        (show_seconds, 2.5e-6, "2.50 µs"),
        (show_seconds, 0.25, "250 ms"),
        (show_seconds, 59.0, "59.0 s"),
        (show_seconds, 61, "1 min 1 s"),
        (show_seconds, 3700, "1 h 1 min"),
        (show_seconds, 200_000, "2 d 7 h"),
    ],
)
def test_units(show: Callable[[float | None], str], value: float | None, expected: str) -> None:
    assert show(value) == expected
