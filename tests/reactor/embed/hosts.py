"""The hosts, each real, behind one face: what a test of all of them needs.

Contents: HostUnderTest, the hosts, HOSTS, new_host.

A host runs on the test's thread. What a test does inside is given to `run`; a failure in there ends the
host and is raised by `run`, since most hosts print what is raised in them and go on.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol, cast

import pytest

from reactor import Reactor
from reactor.embed.frames import Frames
from tests.display import lacks_display, open_display
from tests.reactor.support import DEADLINE

__all__ = ["HOSTS", "HostUnderTest", "new_host"]


class Attached(Protocol):
    """What attaching has given."""

    @property
    def attached(self) -> bool: ...
    def detach(self) -> None: ...


class HostUnderTest:
    """A loop that is not ours. The subclass says how to start it, stop it and call something in it."""

    name: str
    requires: str | None = None
    """The module without which there is no such host."""

    def __init__(self) -> None:
        self._errors: list[BaseException] = []

    def attach(self, reactor: Reactor, **options: float) -> Attached:
        """By the adapter, inside of `run`."""
        attached: Attached = self.module().attach(reactor, *self.arguments(), **options)
        return attached

    def arguments(self) -> tuple[Any, ...]:
        """What the adapter is told of the host."""
        return ()

    @classmethod
    def module(cls) -> Any:
        """The adapter."""
        return importlib.import_module(f"reactor.embed.{cls.name}")

    @classmethod
    def skip_reason(cls) -> str | None:
        """Why it cannot be tested here."""
        if cls.requires is not None:
            try:
                importlib.import_module(cls.requires)
            except ImportError as error:
                return f"NOT TESTED: the host {cls.name} is not installed: {error}"
        return None

    def run(self, begin: Callable[[], object]) -> None:
        """Run the host, and `begin` in it, until `stop`. Raises what was raised in it."""
        guarded = self.guarded(begin)

        def start() -> None:
            self.later(DEADLINE, self._fail)
            guarded()

        self.start(start)
        errors, self._errors = self._errors, []
        if errors:
            raise errors[0]

    def _fail(self) -> None:
        self._errors.append(AssertionError(f"it has not happened in {DEADLINE:g} s"))
        self.stop()

    def guarded(self, function: Callable[..., object]) -> Callable[..., None]:
        """`function`, whose errors end the host, and are `run`'s."""

        def call(*arguments: object) -> None:
            try:
                function(*arguments)
            except BaseException as error:
                self._errors.append(error)
                self.stop()

        return call

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        """By the host's own timer. An error in it ends the host."""
        self.later(delay, self.guarded(callback))

    def tick(self, interval: float, ticks: list[None]) -> None:
        """Add to `ticks`, by the host's own timers, for as long as it runs."""
        ticks.append(None)
        self.later(interval, lambda: self.tick(interval, ticks))

    def start(self, begin: Callable[[], object]) -> None:
        """Run until `stop`, `begin` first."""
        raise NotImplementedError

    def stop(self) -> None:
        """Have `start` return; its timers are forgotten. The host's thread, inside of it."""
        raise NotImplementedError

    def later(self, delay: float, callback: Callable[[], object]) -> None:
        """The host's own timer."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing behind."""

    def nested(self, until: Callable[[], bool]) -> None:
        """Run the host's loop inside one of its callbacks until something holds, where it can do that."""
        pytest.skip(f"{self.name} does not run inside itself")


class Asyncio(HostUnderTest):
    name = "asyncio"

    def __init__(self) -> None:
        super().__init__()
        self.loop = self.new_loop()

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def start(self, begin: Callable[[], object]) -> None:
        self._timers: list[asyncio.TimerHandle] = []
        self.loop.call_soon(begin)
        self.loop.run_forever()

    def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self.loop.stop()

    def later(self, delay: float, callback: Callable[[], object]) -> None:
        self._timers.append(self.loop.call_later(delay, callback))

    def close(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class Uvloop(Asyncio):
    requires = "uvloop"

    def new_loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
        return loop


class Trio(HostUnderTest):
    name = "trio"
    requires = "trio"

    def arguments(self) -> tuple[Any, ...]:
        return (self._nursery,)

    def start(self, begin: Callable[[], object]) -> None:
        import trio

        async def main() -> None:
            self._stopped = trio.Event()
            async with trio.open_nursery() as self._nursery:
                begin()
                await self._stopped.wait()
                self._nursery.cancel_scope.cancel()

        trio.run(main)

    def stop(self) -> None:
        self._stopped.set()

    def later(self, delay: float, callback: Callable[[], object]) -> None:
        import trio

        async def wait() -> None:
            await trio.sleep(delay)
            callback()

        self._nursery.start_soon(wait)


class GLibLoop(HostUnderTest):
    name = "glib"
    requires = "gi.repository.GLib"

    def __init__(self) -> None:
        super().__init__()
        from gi.repository import GLib

        self._glib = GLib
        self._loop = GLib.MainLoop()

    def start(self, begin: Callable[[], object]) -> None:
        self._timers: set[int] = set()
        self.later(0.0, begin)
        self._loop.run()
        for timer in self._timers:
            self._glib.source_remove(timer)

    def stop(self) -> None:
        self._loop.quit()

    def later(self, delay: float, callback: Callable[[], object]) -> None:
        def call() -> bool:
            self._timers.remove(timer)
            callback()
            return False

        timer = self._glib.timeout_add(round(delay * 1e3), call)
        self._timers.add(timer)

    def nested(self, until: Callable[[], bool]) -> None:
        context = self._glib.MainContext.default()
        while not until():
            context.iteration(True)


class Qt(HostUnderTest):
    name = "qt"
    requires = "PySide6.QtCore"

    def __init__(self) -> None:
        super().__init__()
        from PySide6 import QtCore

        self._qt = QtCore
        self._application = QtCore.QCoreApplication.instance() or QtCore.QCoreApplication([])

    def start(self, begin: Callable[[], object]) -> None:
        self._timers: list[Any] = []
        self.later(0.0, begin)
        self._application.exec()
        for timer in self._timers:
            timer.stop()

    def stop(self) -> None:
        self._application.quit()

    def later(self, delay: float, callback: Callable[[], object]) -> None:
        timer = self._qt.QTimer()
        timer.setSingleShot(True)
        timer.timeout.connect(callback)
        timer.start(round(delay * 1e3))
        self._timers.append(timer)

    def nested(self, until: Callable[[], bool]) -> None:
        loop = self._qt.QEventLoop()
        while not until():
            loop.processEvents(self._qt.QEventLoop.ProcessEventsFlag.WaitForMoreEvents)


class Tk(HostUnderTest):
    name = "tk"
    requires = "tkinter"

    @classmethod
    def skip_reason(cls) -> str | None:
        reason = super().skip_reason()
        if reason is None and (lack := lacks_display()) is not None:
            reason = f"NOT TESTED: Tk needs a display, and {lack}"
        return reason

    def __init__(self) -> None:
        super().__init__()
        open_display()
        import tkinter

        self._root = tkinter.Tk()
        self._root.withdraw()

    def arguments(self) -> tuple[Any, ...]:
        return (self._root,)

    def start(self, begin: Callable[[], object]) -> None:
        self._timers: list[str] = []
        self.later(0.0, begin)
        self._root.mainloop()
        for timer in self._timers:
            self._root.after_cancel(timer)

    def stop(self) -> None:
        self._root.quit()

    def later(self, delay: float, callback: Callable[[], object]) -> None:
        self._timers.append(self._root.after(round(delay * 1e3), callback))

    def close(self) -> None:
        self._root.destroy()
        del self._root
        # What a cycle keeps must go on this thread: Tcl ends the process where another collects it.
        gc.collect()

    def nested(self, until: Callable[[], bool]) -> None:
        while not until():
            self._root.tk.dooneevent()


class Twisted(HostUnderTest):
    name = "twisted"
    requires = "twisted.internet"

    def __init__(self) -> None:
        super().__init__()
        # One of our own, since the one that twisted installs runs once in a process.
        if sys.platform == "linux":
            from twisted.internet.epollreactor import EPollReactor as NewReactor
        else:
            from twisted.internet.selectreactor import SelectReactor as NewReactor
        self._reactor: Any = cast(Any, NewReactor)()

    def arguments(self) -> tuple[Any, ...]:
        return (self._reactor,)

    def start(self, begin: Callable[[], object]) -> None:
        self._timers: list[Any] = []
        self._reactor.callWhenRunning(begin)
        self._reactor.run(installSignalHandlers=False)

    def stop(self) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._reactor.stop()

    def later(self, delay: float, callback: Callable[[], object]) -> None:
        self._timers.append(self._reactor.callLater(delay, callback))

    def close(self) -> None:
        # It has no end of its own: a program has one reactor, for its whole life.
        os.close(self._reactor.waker.i)
        os.close(self._reactor.waker.o)
        if hasattr(self._reactor, "_poller"):
            self._reactor._poller.close()


class Gevent(HostUnderTest):
    name = "gevent"
    requires = "gevent"

    def start(self, begin: Callable[[], object]) -> None:
        import gevent
        import gevent.event

        self._stopped = gevent.event.Event()
        self._timers: list[Any] = []
        begin()
        self._stopped.wait()
        gevent.killall(self._timers)

    def stop(self) -> None:
        self._stopped.set()

    def later(self, delay: float, callback: Callable[[], object]) -> None:
        import gevent

        self._timers.append(gevent.spawn_later(delay, callback))

    def close(self) -> None:
        import gevent

        gevent.get_hub().destroy(destroy_loop=True)


class FrameLoop(HostUnderTest):
    name = "frames"

    def attach(self, reactor: Reactor, **options: float) -> Attached:
        frames = super().attach(reactor, **options)
        self._steps.append(cast(Frames, frames).step)
        return frames

    def start(self, begin: Callable[[], object]) -> None:
        import time

        self._over = False
        self._steps: list[Callable[[], object]] = []
        self._timers: list[tuple[float, Callable[[], object]]] = []
        begin()
        while not self._over:
            for step in self._steps:
                step()
            due = [timer for timer in self._timers if timer[0] <= time.monotonic()]
            for timer in due:
                self._timers.remove(timer)
                timer[1]()
            time.sleep(0.001)  # until the next frame

    def stop(self) -> None:
        self._over = True

    def later(self, delay: float, callback: Callable[[], object]) -> None:
        import time

        self._timers.append((time.monotonic() + delay, callback))


HOSTS: dict[str, type[HostUnderTest]] = {
    "asyncio": Asyncio,
    "uvloop": Uvloop,
    "trio": Trio,
    "glib": GLibLoop,
    "qt": Qt,
    "tk": Tk,
    "twisted": Twisted,
    "gevent": Gevent,
    "frames": FrameLoop,
}


def new_host(name: str) -> HostUnderTest:
    """The host of that name; skips, and says why, where there is none."""
    reason = HOSTS[name].skip_reason()
    if reason is not None:
        pytest.skip(reason)
    return HOSTS[name]()
