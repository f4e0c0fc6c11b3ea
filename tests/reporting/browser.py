"""Headless Chromium by its DevTools protocol over a pipe, which needs no other package: messages end with a NUL."""

import json
import os
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars")
SECONDS = 60


class Browser:
    """One tab. `problems` collects errors of the console, and `requests` every address that the page asks for."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._number = 0
        self._received = b""
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> Any:
        return self._send(method, self._session, **params)

    def open(self, page: Path, *, width: int, dark: bool = False) -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        self.send("Page.navigate", url=page.resolve().as_uri())
        # Vega puts a figure into each panel after the page has loaded.
        figures = "[...document.querySelectorAll('.vega')].every(panel => panel.querySelector('svg'))"
        end = time.monotonic() + SECONDS
        while not self.evaluate(f"document.readyState === 'complete' && {figures}"):
            assert time.monotonic() < end, f"the page is not ready after {SECONDS} s: {self.problems}"
            time.sleep(0.2)

    def evaluate(self, expression: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        image = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1})
        path.write_bytes(b64decode(image["data"]))

    def _send(self, method: str, session: str | None = None, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._collect(answer.get("method"), answer.get("params"))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium has ended"
            self._received += part
        message, self._received = self._received.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def _collect(self, method: str | None, params: Any) -> None:
        match method:
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(params["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning"):
                self.problems.append(json.dumps(params["args"])[:500])
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.problems.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start Chromium with an empty profile, and end it."""
    assert CHROMIUM is not None
    (commands_out, commands), (answers, answers_in) = os.pipe(), os.pipe()
    keep = (os.dup2(commands_out, 1003), os.dup2(answers_in, 1004))
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$0" "$@" 3<&{keep[0]} 4>&{keep[1]}', CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=keep,
        stderr=subprocess.DEVNULL,
    )
    for end in (*keep, commands_out, answers_in):
        os.close(end)
    try:
        yield Browser(commands, answers)
    finally:
        process.terminate()
        process.wait(SECONDS)
        os.close(commands)
        os.close(answers)
