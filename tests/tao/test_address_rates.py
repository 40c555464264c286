"""tao.address_rates: one bucket for each address, and never too many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao import Rate
from tao.address_rates import AddressRates, network_of
from tao.rate import TokenBucket


def test_each_address_has_its_own() -> None:
    rates = AddressRates(Rate(2))
    assert [rates.take("10.0.0.1", 5.0) for _ in range(3)] == [True, True, False]
    assert rates.take("10.0.0.2", 5.0)
    assert rates.take("10.0.0.1", 5.5)


def test_who_holds_a_bucket_shares_it() -> None:
    rates = AddressRates(Rate(3))
    bucket = rates.hold("10.0.0.1")
    assert rates.hold("10.0.0.1") is bucket
    assert rates.hold("10.0.0.2") is not bucket
    assert bucket.take(5.0)
    assert rates.take("10.0.0.1", 5.0)
    assert bucket.take(5.0)
    assert not bucket.take(5.0)
    rates.release("10.0.0.1", 5.0)
    assert rates.hold("10.0.0.1") is bucket
    rates.release("10.0.0.1", 5.0)
    rates.release("10.0.0.1", 5.0)
    assert rates.hold("10.0.0.1") is bucket  # to come back does not fill it
    assert not bucket.take(5.0)


def test_one_that_is_full_again_is_forgotten() -> None:
    rates = AddressRates(Rate(1))
    for number in range(50):
        assert rates.take(f"10.0.0.{number}", 5.0)
    assert len(rates) == 50
    for number in range(50, 80):  # each makes two old ones go
        assert rates.take(f"10.0.0.{number}", 6.0)
    assert len(rates) == 30
    rates.hold("10.0.0.200")
    rates.release("10.0.0.200", 6.0)
    assert len(rates) == 30  # nothing was taken of it: it need not be kept


def test_no_more_are_kept_than_there_is_room_for() -> None:
    rates = AddressRates(Rate(1, per=3600.0), capacity=10)
    assert rates.take("10.1.1.1", 5.0)
    held = rates.hold("10.2.2.2")
    assert held.take(5.0)
    for number in range(200):
        assert rates.take(f"10.0.0.{number}", 5.0)
        assert len(rates) <= 11
    assert not rates.take("10.0.0.199", 5.0)  # of the last ten, all is known
    assert not rates.take("10.0.0.190", 5.0)
    assert not rates.take("10.2.2.2", 5.0)  # and of what is held
    assert rates.take("10.1.1.1", 5.0)  # the oldest have had to go


def test_one_that_is_used_is_not_the_oldest() -> None:
    rates = AddressRates(Rate(1, per=3600.0), capacity=3)
    for host in ("a", "b", "c"):
        assert rates.take(host, 5.0)
    assert not rates.take("a", 5.0)
    assert rates.take("d", 5.0)
    assert not rates.take("a", 5.0)
    assert rates.take("b", 5.0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=60))
def test_it_holds_what_is_held(steps: list[tuple[str, bool]]) -> None:
    rates = AddressRates(Rate(1, per=3600.0), capacity=2)
    holders = dict.fromkeys("abcdef", 0)
    buckets: dict[str, TokenBucket] = {}
    for host, holds in steps:
        if holds:
            bucket = rates.hold(host)
            assert buckets.setdefault(host, bucket) is bucket or not holders[host]
            buckets[host] = bucket
            bucket.take(5.0)
            holders[host] += 1
        elif holders[host]:
            rates.release(host, 5.0)
            holders[host] -= 1
        assert len(rates) <= 2 + sum(count > 0 for count in holders.values())


def test_there_must_be_room_for_one() -> None:
    with pytest.raises(ValueError, match="capacity"):
        AddressRates(Rate(1), capacity=0)


def test_what_counts_as_one_address() -> None:
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::5")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("fe80::1%eth0") == network_of("fe80::2%eth0")
    assert network_of("::1") != network_of("2001:db8::1")
    assert network_of("what:ever") == "what:ever"
