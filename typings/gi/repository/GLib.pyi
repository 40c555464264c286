from collections.abc import Callable
from enum import IntFlag
from typing import Self

PRIORITY_DEFAULT: int
PRIORITY_DEFAULT_IDLE: int
SOURCE_CONTINUE: bool
SOURCE_REMOVE: bool

class IOCondition(IntFlag):
    IN = 1

class MainContext:
    @classmethod
    def default(cls) -> Self: ...
    def iteration(self, may_block: bool) -> bool: ...

class MainLoop:
    def run(self) -> None: ...
    def quit(self) -> None: ...

def idle_add(function: Callable[[], object], *, priority: int = ...) -> int: ...
def source_remove(tag: int) -> bool: ...
def timeout_add(interval: int, function: Callable[[], object], *, priority: int = ...) -> int: ...
def unix_fd_add_full(
    priority: int, fd: int, condition: IOCondition, function: Callable[[int, IOCondition], object]
) -> int: ...
