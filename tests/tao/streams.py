"""What the tests of codecs share: streams that come in pieces."""

from __future__ import annotations

from collections.abc import Iterable

from tao import Codec

__all__ = ["cut", "feed", "one_by_one"]


def feed(codec: Codec, chunks: Iterable[bytes]) -> tuple[list[bytes], bytes]:
    """Decode a stream that comes in chunks, as a session does; the values found, and what is left."""
    found: list[bytes] = []
    rest = b""
    for chunk in chunks:
        rest += chunk
        used = 0
        for _, value, end in codec.decode(rest):
            found.append(value)
            used = end
        rest = rest[used:]
    return found, rest


def one_by_one(stream: bytes) -> list[bytes]:
    """Its bytes, each for itself."""
    return [stream[index : index + 1] for index in range(len(stream))]


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """In pieces that end at those places, as far as the stream has them."""
    edges = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    return [stream[edges[i] : edges[i + 1]] for i in range(len(edges) - 1)]
