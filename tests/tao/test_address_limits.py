"""tao.address_limits: what an address has, counted; by hand, without sockets."""

from __future__ import annotations

import pytest

from tao import Rate
from tao.address_limits import AddressLimits

FIRST, OTHER = "203.0.113.1", "203.0.113.2"


def test_without_limits_nothing_is_kept() -> None:
    limits = AddressLimits(None, None, None)
    for _ in range(100):
        assert limits.refusal(FIRST, 0.0) is None
        assert limits.enter(FIRST) is None
    limits.leave(FIRST, 0.0)
    assert repr(limits) == "<AddressLimits, 0 addresses with connections>"


def test_so_many_connections_and_no_more() -> None:
    limits = AddressLimits(2, None, None)
    for _ in range(2):
        assert limits.refusal(FIRST, 0.0) is None
        limits.enter(FIRST)
    assert limits.refusal(FIRST, 0.0) == "max_connections_per_address (2) is reached"
    assert limits.refusal(OTHER, 0.0) is None
    limits.leave(FIRST, 0.0)
    assert limits.refusal(FIRST, 0.0) is None
    limits.leave(FIRST, 0.0)
    assert "0 addresses" in repr(limits)


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1"),
        ("203.0.113.1", "::ffff:203.0.113.1", "::ffff:203.0.113.2"),
        ("fe80::1%eth0", "fe80::2%eth1", "2001:db8::1"),
    ],
)
def test_what_counts_as_one_address(one: str, same: str, other: str) -> None:
    limits = AddressLimits(1, None, None)
    limits.enter(one)
    assert limits.refusal(same, 0.0) is not None
    assert limits.refusal(other, 0.0) is None
    limits.leave(same, 0.0)
    assert limits.refusal(one, 0.0) is None


def test_attempts_are_counted_by_their_rate() -> None:
    limits = AddressLimits(None, Rate(1, per=10.0), None)
    assert limits.refusal(FIRST, 0.0) is None
    assert "connection_rate" in (limits.refusal(FIRST, 5.0) or "")
    assert limits.refusal(FIRST, 10.0) is None
    assert limits.refusal(OTHER, 10.0) is None


def test_the_frames_of_an_address_come_from_one_bucket() -> None:
    limits = AddressLimits(None, None, Rate(2, per=10.0))
    bucket = limits.enter(FIRST)
    assert bucket is not None
    assert limits.enter(FIRST) is bucket
    assert limits.enter(OTHER) is not bucket
    assert bucket.take(0.0)
    limits.leave(FIRST, 0.0)
    limits.leave(FIRST, 0.0)
    again = limits.enter(FIRST)
    assert again is not None
    assert again.take(0.0)
    assert not again.take(0.0), "it was forgotten that one had been used"


def test_who_has_no_address_has_no_limits() -> None:
    limits = AddressLimits(1, Rate(1), Rate(1))
    for _ in range(5):
        assert limits.refusal("", 0.0) is None
        assert limits.enter("") is None
    limits.leave("", 0.0)
    assert "0 addresses" in repr(limits)
