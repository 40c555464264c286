"""tao.interfaces: that the classes are what the protocols promise. The type checker does the work."""

from __future__ import annotations

import inspect

import pytest

from tao import ClientConn, MessageServer, Server, ServerConn, WriteCloser


def as_write_closer(conn: WriteCloser) -> WriteCloser:
    return conn


def as_message_server(server: MessageServer) -> MessageServer:
    return server


def test_a_server_is_a_message_server() -> None:
    server = Server()
    assert as_message_server(server) is server


def test_a_server_connection_is_a_write_closer() -> None:
    conn = ServerConn()
    assert as_write_closer(conn) is conn


def test_a_client_connection_is_a_write_closer() -> None:
    def check(client: ClientConn) -> WriteCloser:
        return as_write_closer(client)

    assert callable(check)


@pytest.mark.parametrize("kind", [ServerConn, ClientConn])
def test_both_have_every_name(kind: type) -> None:
    promised = {
        name for name, _ in inspect.getmembers_static(WriteCloser) if not name.startswith("_")
    }
    assert promised  # or the next line could not fail
    assert promised <= set(dir(kind))
