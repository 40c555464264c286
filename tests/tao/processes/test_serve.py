"""`tao serve` as it is used: real processes, real signals, sockets on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tao.cli import main
from tests.examples.support import ROOT
from tests.support import DEADLINE, Peer, wait_until
from tests.tao.processes.application import ECHO, HANG, KILL, NOTE, NOTE_FILE, PEER
from tests.tao.processes.service import APPLICATION, Service, alive, end_by_force, gone, who
from tests.tls_support import Certificates, peer_context

if sys.platform == "linux":  # only there can it be done to other processes
    import resource

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes share sockets on POSIX")


def found_by(address: tuple[str, int], count: int) -> set[int]:
    """The workers that new connections come to, as soon as there are `count`."""
    pids: set[int] = set()

    def look() -> bool:
        with Peer(address) as peer:
            pids.add(who(peer))
        return len(pids) >= count

    assert wait_until(look), pids
    return pids


def test_two_workers_serve_one_port_and_stop_in_good_order(tmp_path: Path) -> None:
    pid_file = tmp_path / "service.pid"
    with Service("--workers", "2", "--pid-file", str(pid_file), "--monitor", "0") as service:
        address = service.address()
        assert pid_file.read_text() == f"{service.pid}\n"
        assert found_by(address, 2) == set(service.workers())
        urls = [line.split()[-1] for line in service.logged(r"monitor on \S+", times=2)]
        for url in urls:
            with urllib.request.urlopen(f"{url}debug/vars", timeout=DEADLINE) as answer:
                assert b"worker " in answer.read()
        with Peer(address) as peer:
            peer.send_frame(ECHO, b"before")
            assert peer.receive_frame() == (ECHO, b"before")
            workers = service.workers()
            service.signal(signal.SIGTERM)
            assert peer.receive_to_end() == b""
            peer.close()
            assert service.wait() == 0
        assert gone(workers)
        assert not pid_file.exists()
        assert service.output == f"listening on {address[0]}:{address[1]}\n"
        assert " WARNING " not in service.errors
        assert " ERROR " not in service.errors
        assert "Traceback" not in service.errors
        with pytest.raises(ConnectionRefusedError):
            Peer(address)


def test_who_falls_is_started_again_and_others_take_his_place_meanwhile() -> None:
    with Service("--workers", "2") as service:
        address = service.address()
        first = found_by(address, 2)
        victim = min(first)
        end_by_force(victim)
        service.logged(r"fell: signal 9; started again at once")
        second = found_by(address, 2) - first
        assert len(second) == 1
        with Peer(address) as peer:  # a handler may do it as well
            peer.send_frame(KILL)
            assert peer.is_cut_off()
        service.logged(r"fell: signal 9", times=2)
        while not (delayed := "started again in" in service.errors):
            with Peer(address) as peer:
                peer.send_frame(KILL)
                assert peer.is_cut_off()
        assert delayed
        service.logged("has fallen: accepting in its place")
        # Whichever slot the kernel deals them to: some worker answers, while one slot has none.
        for _ in range(20):
            with Peer(address) as peer:
                assert alive(who(peer))
        assert service.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes are set on Linux")
def test_others_take_the_place_of_one_that_cannot_be_started_again() -> None:
    assert sys.platform == "linux"
    with Service("--workers", "2") as service:
        address = service.address()
        victim = min(found_by(address, 2))
        before = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
        used = len(list(Path(f"/proc/{service.pid}/fd").iterdir()))
        # Those that the dead worker leaves are too few for the next one.
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (used, before[1]))
        end_by_force(victim)
        service.logged("cannot start worker")
        service.logged("has fallen: accepting in its place")
        for _ in range(20):
            with Peer(address) as peer:
                assert who(peer) != victim
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, before)
        assert service.stop() == 0


def test_a_worker_that_is_told_to_stop_finishes_and_ctrl_c_ends_them_all() -> None:
    with Service() as service:
        address = service.address()
        with Peer(address) as peer:
            pid = who(peer)
            os.kill(pid, signal.SIGHUP)  # which is for the parent alone
            assert who(peer) == pid
            os.kill(pid, signal.SIGTERM)
            assert peer.receive_to_end() == b""
        service.logged("fell: exit status 0; started again at once")
        with Peer(address) as peer:
            assert who(peer) != pid
            service.signal(signal.SIGINT)
            assert peer.receive_to_end() == b""
        assert service.wait() == 130
        assert "Traceback" not in service.errors


def test_a_worker_hears_a_signal_that_comes_while_its_loop_begins() -> None:
    with Service(target="tests.tao.processes.interrupted:server") as service:
        service.address()
        service.logged("fell: exit status 0", times=2)
        assert service.stop() == 0


def test_a_reload_runs_new_code_and_a_bad_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "note"
    note.write_text("old")
    monkeypatch.setenv(NOTE_FILE, str(note))
    with Service("--start-timeout", "5") as service:
        address = service.address()
        with Peer(address) as peer:
            note.write_text("fail")
            before = service.workers()
            service.signal(signal.SIGHUP)
            service.logged("not reloaded, the old workers go on")
            service.logged("the application was told to fail")
            assert wait_until(lambda: sorted(service.workers()) == sorted(before))
            note.write_text("new")
            peer.send_frame(NOTE)
            assert peer.receive_frame() == (NOTE, b"old")
            service.signal(signal.SIGHUP)
            assert peer.receive_to_end() == b""  # it is drained
        assert wait_until(lambda: not set(before) & set(service.workers()))
        with Peer(address) as peer:
            peer.send_frame(NOTE)
            assert peer.receive_frame() == (NOTE, b"new")
        assert service.stop() == 0


def test_workers_without_a_parent_finish_and_end() -> None:
    with Service("--grace", "5") as service:
        address = service.address()
        workers = service.workers()
        with Peer(address) as peer:
            who(peer)
            service.signal(signal.SIGKILL)
            assert peer.receive_to_end() == b""
        assert gone(workers)
        service.wait()
        service.logged("the parent process is gone")


def test_workers_without_a_parent_end_while_they_load_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "note"
    note.write_text("hang")
    monkeypatch.setenv(NOTE_FILE, str(note))
    with Service("--workers", "2") as service:
        assert wait_until(lambda: len(service.workers()) == 2)
        workers = service.workers()
        service.signal(signal.SIGKILL)
        try:
            assert gone(workers)
        finally:
            for pid in filter(alive, workers):
                end_by_force(pid)
        service.wait()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("tests.no_such_module:server", "there is no module 'tests.no_such_module'"),
        ("tests.tao.processes.application:fails_when_called", "no database"),
    ],
)
def test_what_cannot_start_ends_with_a_status(target: str, said: str) -> None:
    with Service(target=target) as service:
        assert service.wait() == 1
        assert said in service.errors
        assert "could not be started: exit status 1" in service.errors.splitlines()[-1]
        assert service.output == ""


def test_who_is_not_ready_in_time_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "note"
    note.write_text("hang")
    monkeypatch.setenv(NOTE_FILE, str(note))
    with Service("--start-timeout", "0.5") as service:
        assert service.wait() == 1
        assert "is not ready after 0.5 s" in service.errors


def test_a_port_that_is_taken_is_refused_even_by_one_that_shares() -> None:
    with Service("--workers", "2") as service:
        host, port = service.address()
        with Service("--bind", f"{host}:{port}", "--workers", "2", bind=False) as other:
            assert other.wait() == 1
            assert f"cannot listen on ('{host}', {port})" in other.errors
        assert service.stop() == 0


def test_a_worker_that_hangs_is_ended_at_the_third_signal() -> None:
    with Service() as service, Peer(service.address()) as peer:
        workers = service.workers()
        peer.send_frame(HANG)
        for times in range(1, 4):
            service.signal(signal.SIGTERM)
            if times < 3:
                service.logged(("stopping$", "stopping at once$")[times - 1].replace("$", "\n"))
        assert service.wait() == 1
        assert gone(workers)


def hears_no_more(manager: socket.socket) -> bool:
    """Whether what comes ends, for its time-out at least."""
    try:
        for _ in range(100):
            manager.recv(4096)
    except TimeoutError:
        return True
    return False


def test_the_service_manager_hears_of_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(DEADLINE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")

        def hear(wanted: str) -> str:
            while True:
                text = manager.recv(4096).decode()
                if text.startswith(wanted):
                    return text

        with Service() as service:
            assert hear("READY=1") == "READY=1\nSTATUS=1 worker serves"
            hear("WATCHDOG=1")
            service.signal(signal.SIGHUP)
            assert int(hear("RELOADING=1").splitlines()[1].removeprefix("MONOTONIC_USEC=")) > 0
            hear("READY=1")
            hear("WATCHDOG=1")
            with Peer(service.address()) as peer:
                peer.send_frame(HANG)
                manager.settimeout(0.5)  # more than twice the watchdog's time
                assert hears_no_more(manager)
                manager.settimeout(DEADLINE)
                service.signal(signal.SIGTERM)
                hear("STOPPING=1")
            for pid in service.workers():
                end_by_force(pid)
            service.wait()


ACTIVATE = """
import fcntl, os, sys
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for number, descriptor in enumerate(high, 3):
    os.dup2(descriptor, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="web:spare")
os.execv(sys.executable, [sys.executable, "-W", "error", "-m", "tao", "serve", *sys.argv[3:]])
"""


def test_sockets_of_the_service_manager_are_served(tmp_path: Path) -> None:
    """Their numbers are 3 and 4: the program that execs the service puts them there."""
    with socket.socket() as web, socket.socket(socket.AF_UNIX) as spare:
        web.bind(("127.0.0.1", 0))
        web.listen()
        spare.bind(str(tmp_path / "spare"))
        spare.listen()
        numbers = (web.fileno(), spare.fileno())
        target = "tests.tao.processes.application:make_server"
        with subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, *map(str, numbers), target, "--bind", "fd:web"],
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            pass_fds=numbers,
            stderr=subprocess.PIPE,
            text=True,
        ) as service:
            with Peer(web.getsockname()) as peer:
                peer.send_frame(ECHO, b"activated")
                assert peer.receive_frame() == (ECHO, b"activated")
                service.send_signal(signal.SIGTERM)
                assert peer.receive_to_end() == b""
            _, said = service.communicate(timeout=DEADLINE)
            assert service.returncode == 0
            assert "systemd's socket 'spare' is not used" in said


def test_tls_is_the_commands_affair_and_a_reload_reads_the_certificate_again(
    tmp_path: Path,
) -> None:
    certificates = Certificates(tmp_path)
    key, certificate = certificates.key_and_certificate("localhost")
    with Service("--tls-cert", str(certificate), "--tls-key", str(key)) as service:
        address = service.address()
        context = peer_context(certificates)

        def serial() -> object:
            with (
                socket.create_connection(address, DEADLINE) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as tls,
            ):
                return (tls.getpeercert() or {})["serialNumber"]

        before = serial()
        new_key, new_certificate = certificates.key_and_certificate("localhost")
        assert (new_key, new_certificate) == (key, certificate)  # the files are written over
        assert serial() == before
        service.reload()
        assert serial() != before
        assert service.stop() == 0


PROXIED = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n"


def test_a_unix_socket_behind_a_proxy_is_there_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    arguments = ["--bind", f"unix:{path}", "--socket-mode", "600", "--proxy-protocol"]
    with Service(*arguments, bind=False) as service:
        service.wait_for("listening on")
        assert path.stat().st_mode & 0o777 == 0o600
        service.reload()
        with Peer(str(path)) as peer:
            peer.send(PROXIED)
            peer.send_frame(PEER)
            assert peer.receive_frame() == (PEER, b"192.0.2.7:4711")
        assert service.stop() == 0
        assert not path.exists()


def test_what_makes_no_sense_names_its_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value, said in [
        ("TAO_BIND", "127.0.0.1:1,nowhere", "TAO_BIND: 'nowhere' has no port"),
        ("TAO_WORKERS", "none", "TAO_WORKERS: expected a number from 1 on"),
        ("TAO_GRACE", "-1", "TAO_GRACE: expected a positive number of seconds"),
        ("TAO_MONITOR", "65536", "TAO_MONITOR: a port is a number from 0 to 65535"),
        ("TAO_SOCKET_MODE", "999", "TAO_SOCKET_MODE: a file's mode is from 0 to 777"),
        ("TAO_LOG_LEVEL", "loud", "TAO_LOG_LEVEL: choose one of debug, info"),
        ("TAO_TLS_KEY", "key.pem", "a key needs its certificate"),
        ("TAO_TRUSTED_PROXIES", "10.0.0.0/8", "--trusted-proxies has a meaning with"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            assert main(["serve", APPLICATION]) == 2
        assert said in capsys.readouterr().err
    assert main(["serve", "no_colon"]) == 2
    assert "argument MODULE:SERVER: a server is named like" in capsys.readouterr().err


def test_addresses_come_from_all_options() -> None:
    more = "[::1]:0" if socket.has_ipv6 else "127.0.0.1:0"
    with Service("--bind", f"127.0.0.1:0, {more}") as service:
        found = service.wait_for(r"listening on (.*)\n")[1].split(", ")
        assert [each.rpartition(":")[0] for each in found] == [
            *["127.0.0.1"] * 2,
            more.rpartition(":")[0],
        ]
        assert service.stop() == 0


def test_a_socket_of_the_service_manager_that_is_not_there_is_missed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve", APPLICATION, "--bind", "fd:web"]) == 1
    assert "there is no socket 'web' of systemd's" in capsys.readouterr().err


def without_streams(redirection: str, path: Path) -> subprocess.Popen[str]:
    """A service at that Unix socket, of whose standard streams a shell has made something else."""
    command = [sys.executable, "-m", "tao", "serve", APPLICATION, "--bind", f"unix:{path}"]
    return subprocess.Popen(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_a_service_that_cannot_print_is_ready_nevertheless(
    redirection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with without_streams(redirection, tmp_path / "socket") as service:
            try:
                assert manager.recv(4096).startswith(b"READY=1")
            finally:
                service.send_signal(signal.SIGTERM)
                _, said = service.communicate(timeout=DEADLINE)
        assert "Traceback" not in said


def test_a_service_without_standard_input_serves(tmp_path: Path) -> None:
    """Its first socket would be descriptor 0, where its workers have the null device."""
    path = tmp_path / "socket"
    with without_streams("<&-", path) as service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline() == f"listening on {path}\n"
            with Peer(str(path)) as peer:
                peer.send_frame(ECHO, b"heard")
                assert peer.receive_frame() == (ECHO, b"heard")
        finally:
            service.send_signal(signal.SIGTERM)
            _, said = service.communicate(timeout=DEADLINE)
        assert service.returncode == 0, said
