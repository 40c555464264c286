"""A short run; and that it would find what is wrong."""

from __future__ import annotations

import copy

import pytest

from tests.cluster import __main__ as command
from tests.cluster.judge import Connection, judge
from tests.cluster.rounds import Plan, run
from tests.redis_support import needs_redis

SHORT = Plan(
    clients=24,
    interval=0.2,
    calm=0.5,
    killed=0.2,
    frozen=1.5,
    stopped=4.0,
    time_to_live=3.0,
)


@needs_redis
def test_a_short_run_finds_nothing() -> None:
    said: list[str] = []
    result = run(SHORT, said.append)
    assert result.verdict.findings == []
    assert len(said) == len(result.phases) == 5
    # Something was done to them, and it was seen.
    assert len(result.connections) > SHORT.clients
    assert any(connection.ended for connection in result.connections)
    assert result.said > 200
    events = [result.events[server] for server in result.counters]
    assert all(event["DISCONNECTED"] >= 2 and event["RESET"] == 1 for event in events)
    assert sum(event["GIVEN_UP"] for event in events) > 0
    assert sum(event["MISSED"] for event in events) > 0
    assert "0 findings" in result.summary()


# -- what it would find --------------------------------------------------------------------------


def conversation() -> list[Connection]:
    """Four on two servers; each has said five things, a second apart, and all have heard all."""
    made = [
        Connection(
            number, "one" if number < 2 else "two", since=0.0, said=[1.0, 2.0, 3.0, 4.0, 5.0]
        )
        for number in range(4)
    ]
    for listener in made:
        for sender in made:
            for number in range(1, 6):
                listener.hear(sender.id, number)
    return made


def findings(connections: list[Connection], *outages: tuple[float, float]) -> list[str]:
    return judge(connections, list(outages)).findings


def heard_without(connections: list[Connection], listener: int, sender: int, *missing: int) -> None:
    """As if some had not come."""
    connections[listener].heard.pop(sender)
    for number in range(1, 6):
        if number not in missing:
            connections[listener].hear(sender, number)


def test_what_is_in_order_is_no_finding() -> None:
    verdict = judge(conversation(), [])
    assert (verdict.findings, verdict.deliveries) == ([], 80)
    assert not verdict.missing


@pytest.mark.parametrize("number", [1, 3, 5])
def test_what_was_not_heard_is_found(number: int) -> None:
    """At the beginning, in the middle, and at the end."""
    connections = conversation()
    heard_without(connections, 0, 3, number)
    [found] = findings(connections)
    assert f"message {number} of 3" in found


def test_who_heard_nothing_of_another_is_found() -> None:
    connections = conversation()
    connections[0].heard.pop(3)
    assert len(findings(connections)) == 5


def test_what_came_twice_or_too_late_is_found() -> None:
    for number in (5, 2):
        connections = conversation()
        connections[1].hear(2, number)
        [found] = findings(connections)
        assert "twice, or out of order" in found


def test_what_was_lost_in_an_outage_is_counted_if_it_was_between_two_servers() -> None:
    connections = conversation()
    heard_without(connections, 0, 3, 2, 3)
    verdict = judge(connections, [(1.5, 3.5)])
    assert (verdict.findings, verdict.missing[0]) == ([], 2)
    assert len(findings(connections, (2.5, 3.5))) == 1  # one of them was said before it
    connections = conversation()
    heard_without(connections, 0, 1, 2)  # on its own server
    assert len(findings(connections, (1.5, 3.5))) == 1


def test_who_comes_later_need_not_have_heard_what_was_before() -> None:
    connections = conversation()
    connections[0].since = 2.5
    heard_without(connections, 0, 3, 1, 2)
    assert findings(connections) == []
    heard_without(connections, 0, 3, 1, 2, 3)
    assert len(findings(connections)) == 1


def test_the_last_words_of_who_was_killed_are_heard_by_all_or_by_none() -> None:
    connections = conversation()
    connections[3].ended = True
    for listener in range(3):
        heard_without(connections, listener, 3, 4, 5)
    assert findings(connections) == []
    others = copy.deepcopy(connections)
    heard_without(others, 1, 3, 5)
    [found] = findings(others)
    assert "[3, 4]" in found


def test_the_command_line_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "PROGRAM", None)
    assert command.main([]) == 2
    assert "NOT TESTED" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        command.main(["--clients", "many"])
    assert ended.value.code == 2
