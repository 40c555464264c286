"""A real browser without a screen: Chromium, driven through its DevTools protocol.

Contents: lacks_browser, Browser, Tab.

The protocol (https://chromedevtools.github.io/devtools-protocol/) is JSON, each message ended by a
zero byte, through two pipes that Chromium has as descriptors 3 and 4 (--remote-debugging-pipe): there is
no port.
Owns the process and its profile, and ends both. One thread.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support import DEADLINE

__all__ = ["Browser", "Tab", "lacks_browser"]

NAMES = ("chromium", "chromium-browser", "google-chrome")

START_DEADLINE = 30.0
"""Seconds for a browser to come up, however busy the machine."""

OPTIONS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-pipe",
)

# Popen can pass descriptors on, but not under other numbers.
SHIM = """
import os, sys
reader, writer = map(int, sys.argv[1:3])
spare = [os.dup2(fd, 60 + at) for at, fd in enumerate((reader, writer))]
os.dup2(spare[0], 3)
os.dup2(spare[1], 4)
os.closerange(5, 256)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def lacks_browser() -> str | None:
    """Why there is none; None if there is one."""
    if sys.platform == "win32":
        return "its pipes have other names on Windows"
    if not any(shutil.which(name) for name in NAMES):
        return f"none of {', '.join(NAMES)} is installed"
    return None


class Browser:
    """A Chromium with an empty profile, for as long as the context lasts."""

    def __init__(self) -> None:
        program = next(filter(None, map(shutil.which, NAMES)))
        self._profile = tempfile.mkdtemp(prefix="tao-browser-")
        their_reader, self._writer = os.pipe()
        self._reader, their_writer = os.pipe()
        # As root, as in a container, its own sandbox cannot be had.
        sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
        options = (*OPTIONS, *sandbox, f"--user-data-dir={self._profile}")
        shim = (sys.executable, "-I", "-c", SHIM, str(their_reader), str(their_writer))
        self._process = subprocess.Popen(
            [*shim, program, *options, "about:blank"],
            pass_fds=(their_reader, their_writer),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # to be ended with all that it has started
        )
        os.close(their_reader)
        os.close(their_writer)
        self._received = bytearray()
        self._last_id = 0
        self.tabs: dict[str, Tab] = {}
        self.call("Browser.getVersion", within=START_DEADLINE)

    def open(
        self,
        url: str,
        *,
        width: int = 1200,
        height: int = 900,
        dark: bool = False,
        phone: bool = False,
    ) -> Tab:
        """A tab with that page, with a cookie jar of its own, in a window of so many pixels."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, session["sessionId"], context)
        self.tabs[session["sessionId"]] = tab
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        tab.call("Page.navigate", url=url)
        tab.wait_for("document.readyState === 'complete'")
        return tab

    def call(
        self,
        method: str,
        session: str | None = None,
        *,
        within: float = DEADLINE,
        **parameters: Any,
    ) -> Any:
        """What a command gives; fails when it fails, or does not answer within so many seconds."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + within
        while True:
            answer = self._receive(end, method)
            if answer.get("id") == self._last_id:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            if answer.get("sessionId") in self.tabs and "method" in answer:
                self.tabs[answer["sessionId"]].note(answer["method"], answer["params"])

    def _receive(self, end: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._received:
            left = end - time.monotonic()
            ready = select.select([self._reader], [], [], max(0.0, left))[0]
            assert ready, f"the browser does not answer {method}"
            data = os.read(self._reader, 1 << 16)
            assert data, f"the browser has ended; it was asked for {method}"
            self._received += data
        message, _, rest = bytes(self._received).partition(b"\0")
        self._received = bytearray(rest)
        found: dict[str, Any] = json.loads(message)
        return found

    def close(self) -> None:
        """End it and all of its processes, and remove its profile."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        os.close(self._reader)
        os.close(self._writer)
        # Its processes may be about to end still, and write.
        end = time.monotonic() + DEADLINE
        while os.path.exists(self._profile) and time.monotonic() < end:
            shutil.rmtree(self._profile, ignore_errors=True)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Tab:
    """One page."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context
        self.errors: list[str] = []
        """What its console has complained about: exceptions, and what the policy has forbidden."""
        self.requests: list[str] = []
        """The URLs that it has asked for."""

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol, for this tab."""
        return self._browser.call(method, self._session, **parameters)

    def note(self, event: str, values: dict[str, Any]) -> None:
        """An event of the protocol."""
        if event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(values["exceptionDetails"]))
        elif event == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.errors.append(values["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])

    def evaluate(self, expression: str) -> Any:
        """The value of some JavaScript."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str, within: float = DEADLINE) -> None:
        """Look until some JavaScript is true."""
        end = time.monotonic() + within
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, f"{expression}; the page says {self.text()!r}"
            time.sleep(0.02)

    def text(self) -> str:
        """What there is to be read."""
        return str(self.evaluate("document.body.innerText"))

    def press(self, keys: Sequence[str]) -> None:
        """Keys, by their names: "Tab", "Enter"."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        for key in keys:
            texts = {"Enter": "\r", " ": " "}
            for kind in ("keyDown", "keyUp"):
                self.call(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key=key,
                    code="Space" if key == " " else key,
                    windowsVirtualKeyCode=codes[key],
                    **({"text": texts[key]} if key in texts and kind == "keyDown" else {}),
                )

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self) -> bytes:
        """What its window shows, as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def save_picture(self, path: Path) -> None:
        """`picture`, into a file."""
        path.write_bytes(self.picture())

    def close(self) -> None:
        """Close it, and forget all that it has kept."""
        del self._browser.tabs[self._session]
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)
