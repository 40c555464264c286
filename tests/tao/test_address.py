"""tao.address: addresses as people write and read them."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tao.address import check_address, format_address, parse_address


@pytest.mark.parametrize("address", [("", 0), ("127.0.0.1", 1), ("::1", 65535), "/tmp/socket"])
def test_addresses_that_make_sense(address: Any) -> None:
    check_address(address, first_port=0)


@pytest.mark.parametrize(
    "address",
    [
        None,
        80,
        b"/tmp/socket",
        ("127.0.0.1",),
        ("127.0.0.1", "80"),
        ("127.0.0.1", 80, 0),
        ["127.0.0.1", 80],
        (b"127.0.0.1", 80),
        ("127.0.0.1", None),
        ("127.0.0.1", 80.0),
    ],
)
def test_addresses_of_the_wrong_type_are_told_what_is_right(address: Any) -> None:
    with pytest.raises(TypeError, match="an address is") as caught:
        check_address(address, first_port=0)
    assert repr(address) in str(caught.value)


@pytest.mark.parametrize(("port", "first_port"), [(-1, 0), (65536, 0), (0, 1)])
def test_ports_out_of_range(port: int, first_port: int) -> None:
    with pytest.raises(ValueError, match=f"from {first_port} to 65535"):
        check_address(("127.0.0.1", port), first_port=first_port)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        (("::ffff:127.0.0.1", 80, 0, 0), "127.0.0.1:80"),
        (("fe80::1", 80, 0, 0), "[fe80::1]:80"),
        (("fe80::1", 80, 0, 4_000_000), "[fe80::1%4000000]:80"),
        (b"\0name", "@name"),
        ("\0name", "@name"),
        ("/tmp/socket", "/tmp/socket"),
        ("", "-"),
        (None, "-"),
    ],
)
def test_as_text(address: Any, text: str) -> None:
    assert format_address(address) == text


def test_a_scope_is_shown_by_its_interface_s_name() -> None:
    number, name = socket.if_nameindex()[0]
    assert format_address(("fe80::1", 80, 0, number)) == f"[fe80::1%{name}]:80"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("localhost:0", ("localhost", 0)),
        ("a-b.example.org:65535", ("a-b.example.org", 65535)),
        ("bücher.example:80", ("bücher.example", 80)),
        ("[::1]:80", ("::1", 80)),
        ("[::]:80", ("::", 80)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("[::ffff:10.0.0.1]:80", ("::ffff:10.0.0.1", 80)),
        (":80", ("", 80)),
        ("/run/chat.sock", "/run/chat.sock"),
        ("./chat.sock", "./chat.sock"),
        ("../chat.sock", "../chat.sock"),
        ("unix:/run/chat.sock", "/run/chat.sock"),
        ("unix:chat.sock", "chat.sock"),
        ("unix:127.0.0.1:80", "127.0.0.1:80"),
        ("/run/chat:80", "/run/chat:80"),
        ("@chat", "\0chat"),
        ("unix:@chat", "\0chat"),
    ],
)
def test_text_that_is_an_address(text: str, address: object) -> None:
    assert parse_address(text) == address
    check_address(address, first_port=0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no port"),
        ("80", "no port"),
        ("localhost", "no port"),
        ("localhost:", "no port"),
        ("localhost:http", "no port"),
        ("localhost:-1", "no port"),
        ("localhost:+1", "no port"),
        ("localhost: 1", "no port"),
        ("localhost:1_0", "no port"),
        ("localhost:\u0661", "no port"),
        ("localhost:\u00b2", "no port"),
        ("::1", "in brackets"),
        ("::1:80", "in brackets"),
        ("[::1]", "no port"),
        ("[]:80", "no IPv6 address"),
        ("[::1:80", "no IPv6 address"),
        ("[127.0.0.1]:80", "no IPv6 address"),
        ("[::1]x:80", "no IPv6 address"),
        ("[fe80::1%]:80", "no IPv6 address"),
        ("http://localhost:80", "in brackets"),
        ("me@localhost:80", "no host"),
        ("local host:80", "no host"),
        ("local\nhost:80", "no host"),
        ("unix:", "no Unix socket"),
        ("unix:@", "no Unix socket"),
        ("@", "no Unix socket"),
        ("/run/\0chat", "no Unix socket"),
    ],
)
def test_text_that_is_no_address_is_told_what_is_expected(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse_address(text)
    assert "HOST:PORT" in str(caught.value)
    assert "[::1]:12345" in str(caught.value)
    assert "unix:PATH" in str(caught.value)


@pytest.mark.parametrize("port", ["65536", "9" * 10_000])
def test_text_with_a_port_that_there_is_not(port: str) -> None:
    with pytest.raises(ValueError, match="from 0 to 65535"):
        parse_address(f"localhost:{port}")


def test_text_with_a_port_that_nothing_can_connect_to() -> None:
    with pytest.raises(ValueError, match="from 1 to 65535"):
        parse_address("localhost:0", first_port=1)


@pytest.mark.parametrize(
    "address",
    [("127.0.0.1", 80), ("::1", 80), ("fe80::1%lo", 80), ("", 80), "/run/chat", "\0chat"],
)
def test_what_is_shown_is_read_again(address: Any) -> None:
    assert parse_address(format_address(address)) == address


def test_an_empty_path_is_none() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        check_address("", first_port=0)


def test_a_path_with_a_zero_byte_in_it_is_none() -> None:
    with pytest.raises(ValueError, match="must have no zero byte"):
        check_address("/run/chat\0/x", first_port=0)
    check_address("\0name\0of\0parts", first_port=0)
