"""The check of an argument that is a number of things. Any thread."""

from __future__ import annotations

__all__ = ["check_count"]


def check_count(name: str, value: int, what: str, *, least: int = 1) -> None:
    """Raise TypeError or ValueError unless it is an int and not too small. `what` is counted, in words."""
    if type(value) is not int:
        raise TypeError(f"{name} is the number of {what}: an int, not {value!r}")
    if value < least:
        raise ValueError(
            f"{name} is the number of {what}: it must be at least {least}, not {value}"
        )
