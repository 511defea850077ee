"""A page in a real Chromium, driven over the debugging pipe: its text, its console and its screenshots."""

import base64
import itertools
import json
import os
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.gateway.tether import tethered
from tests.gateway.waiting import scaled, wait_until
from tests.support.agent import processes
from tests.support.agent.agent_process import clean_environment
from tests.support.browser.chromium import FLAGS, PROGRAM

TIMEOUT_S = 30
DESKTOP, PHONE = (1280, 900), (390, 844)


class WebPage:
    """One tab, as a context manager that ends the browser."""

    def __init__(self, directory: Path, url: str, *flags: str, scripts: bool = True) -> None:
        """Open ``url`` with a profile in ``directory``. Blocks until the page has loaded."""
        self.complaints: list[str] = []
        """Errors, warnings, policy violations and exceptions from the console."""
        self._numbers = itertools.count(1)
        self._tab = ""
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        self._left = b""
        command = tethered(
            *(PROGRAM, *FLAGS, *flags),
            *(f"--user-data-dir={directory / 'web-page'}", "--remote-debugging-pipe", "about:blank"),
        )
        # Chromium expects the pipe on descriptors 3 and 4, which may be in use here: the shell moves them.
        moved = f'exec "$@" 3<&{their_in} 4>&{their_out}'
        self._process = processes.Process(
            ["bash", "-c", moved, "bash", *command], pass_fds=(their_in, their_out), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment(), start_new_session=True,
        )  # fmt: skip
        os.close(their_in)
        os.close(their_out)
        try:
            target = self._ask("Target.createTarget", url="about:blank")["targetId"]
            self._tab = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self._ask(f"{domain}.enable")
            self._ask("Emulation.setScriptExecutionDisabled", value=not scripts)
            self.look_like(*DESKTOP)
            self._ask("Page.navigate", url=url)
            wait_until(lambda: self.run("document.readyState") == "complete", TIMEOUT_S, what="the page")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page, await it if it is a promise, and return its value."""
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector: str = "body") -> str:
        """Return the visible text of an element, empty if there is none."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait_for(self, words: str, selector: str = "body") -> str:
        """Wait until an element's text contains these words and return the text. Blocks."""
        try:
            return str(wait_until(lambda: text if words in (text := self.text(selector)) else "", TIMEOUT_S))
        except AssertionError as error:
            raise AssertionError(f"no {words!r} in:\n{self.text(selector)}") from error

    def press(self, key: str) -> None:
        """Press one key. A letter is typed as text."""
        named = {"Enter": "\r"}
        text = {"text": named.get(key, key)} if len(key) == 1 or key in named else {}
        for kind in ("keyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, **(text if kind == "keyDown" else {}))

    def look_like(self, width: int, height: int, *, scheme: str = "light") -> None:
        """Set the screen size and the preferred colour scheme."""
        is_phone = width < 600
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if is_phone else 1}
        self._ask("Emulation.setDeviceMetricsOverride", mobile=is_phone, **size)
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        picture = self._ask(
            "Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole=whole)
        )
        path.write_bytes(base64.b64decode(picture["data"]))

    def _clip(self, *, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self._ask("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def close(self) -> None:
        for end in (self._in, self._out):
            os.close(end)  # Chromium ends when its pipe does
        try:
            self._process.wait(scaled(10))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # --- the pipe -------------------------------------------------------------------------------------------------

    def _ask(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._tab:
            message["sessionId"] = self._tab
        self._write(message)
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer.get("method"), answer.get("params", {}))

    def _write(self, message: dict[str, Any]) -> None:
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._out, data) :]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + scaled(TIMEOUT_S)
        while b"\0" not in self._left:
            assert select.select([self._in], [], [], max(0, until - time.monotonic()))[0], "the browser does not answer"
            more = os.read(self._in, 1 << 20)
            assert more, "the browser has ended"
            self._left += more
        line, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, method: str | None, said: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(str([argument.get("value") for argument in said["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(said["exceptionDetails"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
