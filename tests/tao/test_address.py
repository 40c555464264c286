"""tao.address: addresses as people write and read them."""

from __future__ import annotations

from typing import Any

import pytest

from tao.address import check_address, format_address


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
        ("/tmp/socket", "/tmp/socket"),
        ("", "-"),
        (None, "-"),
    ],
)
def test_as_text(address: Any, text: str) -> None:
    assert format_address(address) == text
