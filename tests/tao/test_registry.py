"""tao.registry: which number means which message."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from tao import (
    Context,
    HeartBeatMessage,
    MessageRegistry,
    Phase,
    Rate,
    Refusal,
    WriteCloser,
    default_registry,
    register,
)
from tests.support import as_bytes


class Chat:
    """A message as an application writes it."""

    message_number: ClassVar[int] = 7

    def __init__(self, text: str) -> None:
        self.text = text

    def serialize(self) -> bytes:
        return self.text.encode()

    @classmethod
    def deserialize(cls, data: bytes) -> Chat:
        return cls(data.decode())


def handle(context: Context[Any], conn: WriteCloser) -> None:
    """Does nothing."""


def test_registered_numbers_are_found() -> None:
    registry = MessageRegistry()
    registry.register(5, as_bytes, handle, inline=True, max_size=10)
    entry = registry.find(5)
    assert entry is not None
    assert (entry.number, entry.handler, entry.inline, entry.max_size) == (5, handle, True, 10)
    assert entry.deserialize(b"x") == b"x"
    assert 5 in registry


def test_other_numbers_are_not() -> None:
    registry = MessageRegistry()
    assert registry.find(5) is None
    assert 5 not in registry


def test_a_handler_is_optional_and_runs_on_a_worker_unless_asked() -> None:
    registry = MessageRegistry()
    registry.register(5, as_bytes)
    entry = registry.find(5)
    assert entry is not None
    assert (entry.handler, entry.inline, entry.max_size) == (None, False, None)


def test_the_decorator_takes_number_and_decoder_from_the_class() -> None:
    registry = MessageRegistry()

    @registry.handler(Chat, max_size=3)
    def on_chat(context: Context[Chat], conn: WriteCloser) -> Chat:
        return context.message

    entry = registry.find(7)
    assert entry is not None
    assert (entry.handler, entry.inline, entry.max_size) == (on_chat, False, 3)
    message = entry.deserialize(b"hi")
    assert isinstance(message, Chat)
    assert message.text == "hi"


def test_the_decorator_refuses_a_class_without_a_number() -> None:
    class Nameless:
        @classmethod
        def deserialize(cls, data: bytes) -> Nameless:
            return cls()

    nameless: Any = Nameless
    with pytest.raises(TypeError, match="message_number"):
        MessageRegistry().handler(nameless)


def test_the_decorator_refuses_a_class_that_cannot_be_read() -> None:
    class Unreadable:
        message_number = 5

    unreadable: Any = Unreadable
    with pytest.raises(TypeError, match="deserialize"):
        MessageRegistry().handler(unreadable)


def test_a_number_is_registered_once() -> None:
    registry = MessageRegistry()
    registry.register(5, as_bytes)
    with pytest.raises(ValueError, match="5 is registered already"):
        registry.register(5, as_bytes, handle)
    entry = registry.find(5)
    assert entry is not None
    assert entry.handler is None


def test_unregistering_makes_room() -> None:
    registry = MessageRegistry()
    registry.register(5, as_bytes)
    registry.unregister(5)
    assert 5 not in registry
    registry.register(5, as_bytes, handle)
    assert 5 in registry


def test_what_is_not_registered_cannot_be_unregistered() -> None:
    with pytest.raises(KeyError):
        MessageRegistry().unregister(5)


@pytest.mark.parametrize("number", [-(1 << 31) - 1, 1 << 31])
def test_a_number_must_fit(number: int) -> None:
    with pytest.raises(ValueError, match="int32"):
        MessageRegistry().register(number, as_bytes)


@pytest.mark.parametrize("number", [-(1 << 31), (1 << 31) - 1])
def test_the_outermost_numbers_fit(number: int) -> None:
    registry = MessageRegistry()
    registry.register(number, as_bytes)
    assert number in registry


def test_arguments_that_make_no_sense() -> None:
    registry = MessageRegistry()
    wrong: Any = "not callable"
    with pytest.raises(TypeError, match="number"):
        registry.register(wrong, as_bytes)
    with pytest.raises(TypeError, match="deserialize"):
        registry.register(5, wrong)
    with pytest.raises(TypeError, match="handler"):
        registry.register(5, as_bytes, wrong)
    with pytest.raises(ValueError, match="inline"):
        registry.register(5, as_bytes, inline=True)
    with pytest.raises(ValueError, match="max_size"):
        registry.register(5, as_bytes, max_size=-1)
    assert 5 not in registry


@pytest.mark.parametrize(
    ("conditions", "kind", "text"),
    [
        ({"phases": "after"}, TypeError, "phases is a Phase"),
        ({"phases": Phase(0)}, ValueError, "in no phase"),
        ({"rate": 10}, TypeError, "rate is a Rate"),
        ({"refusal": "skip"}, TypeError, "refusal is Refusal"),
    ],
)
def test_conditions_that_make_no_sense(
    conditions: dict[str, Any], kind: type[Exception], text: str
) -> None:
    registry = MessageRegistry()
    with pytest.raises(kind, match=text):
        registry.register(5, as_bytes, **conditions)
    assert 5 not in registry
    with pytest.raises(kind, match=text):
        register(123_456, as_bytes, **conditions)
    assert 123_456 not in default_registry


@pytest.mark.parametrize(
    ("conditions", "guarded"),
    [
        ({}, False),
        ({"phases": Phase.ANY}, False),
        ({"phases": Phase.BEFORE | Phase.AFTER}, False),
        ({"max_size": 5}, False),
        ({"refusal": Refusal.SKIP}, False),
        ({"max_size": 5, "refusal": Refusal.SKIP}, True),
        ({"phases": Phase.AFTER}, True),
        ({"phases": Phase.BEFORE}, True),
        ({"rate": Rate(1)}, True),
    ],
)
def test_what_is_guarded_is_not_found_as_open(conditions: dict[str, Any], guarded: bool) -> None:
    registry = MessageRegistry()

    @registry.handler(Chat, **conditions)
    def on_chat(context: Context[Chat], conn: WriteCloser) -> None: ...

    entry = registry.find(7)
    assert entry is not None
    assert {name: getattr(entry, name) for name in conditions} == conditions
    assert entry.is_guarded == guarded
    assert registry.find_open(7) is (None if guarded else entry)
    registry.unregister(7)
    assert registry.find(7) is None
    assert registry.find_open(7) is None
    with pytest.raises(KeyError):
        registry.unregister(7)


def test_the_heartbeat_may_be_guarded() -> None:
    registry = MessageRegistry()
    registry.register(0, HeartBeatMessage.deserialize, handle, rate=Rate(1))
    assert registry.find_open(0) is None
    assert registry.find(0) is not None


def test_the_heartbeat_is_there_from_the_start() -> None:
    entry = MessageRegistry().find(0)
    assert entry is not None
    message = HeartBeatMessage(12)
    assert entry.deserialize(message.serialize()) == message
    assert entry.inline


def test_the_heartbeat_may_be_replaced_once() -> None:
    registry = MessageRegistry()
    registry.register(0, HeartBeatMessage.deserialize, handle)
    entry = registry.find(0)
    assert entry is not None
    assert entry.handler is handle
    with pytest.raises(ValueError, match="registered already"):
        registry.register(0, HeartBeatMessage.deserialize, handle)


def test_a_heartbeat_that_was_unregistered_may_be_registered() -> None:
    registry = MessageRegistry()
    registry.unregister(0)
    registry.register(0, as_bytes, handle)
    entry = registry.find(0)
    assert entry is not None
    assert entry.handler is handle


def test_registries_do_not_share() -> None:
    first, second = MessageRegistry(), MessageRegistry()
    first.register(5, as_bytes)
    assert 5 not in second
    assert len(first) == len(second) + 1


def test_register_is_the_default_registrys() -> None:
    number = 123_456
    register(number, as_bytes, handle, inline=True, max_size=1)
    try:
        entry = default_registry.find(number)
        assert entry is not None
        assert (entry.handler, entry.inline, entry.max_size) == (handle, True, 1)
    finally:
        default_registry.unregister(number)


def test_its_repr_lists_the_numbers() -> None:
    registry = MessageRegistry()
    registry.register(5, as_bytes)
    assert repr(registry) == "<MessageRegistry of [0, 5]>"
