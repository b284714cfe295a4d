"""A real Chromium without a window, from Debian's packages."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM = "/usr/bin/chromium"
DRIVER = "/usr/bin/chromedriver"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--lang=en-GB",
)  # fmt: skip
AUDIT = (Path(__file__).parent / "audit.js").read_text()
_LIMIT_S = 10.0
_VIOLATIONS = """
window.violations = [];
const note = (event, text) => addEventListener(event, (told) => window.violations.push(text(told)));
note("securitypolicyviolation", (told) => `${told.violatedDirective} ${told.blockedURI}`);
note("error", (told) => told.message);
note("unhandledrejection", (told) => String(told.reason));
"""


needs_browser = pytest.mark.skipif(
    not (Path(CHROMIUM).exists() and Path(DRIVER).exists()),
    reason="no browser: apt-get install chromium chromium-driver",
)


class Browser:
    """Chromium as a context.

    :param folder: an empty directory, for its profile and for what it downloads.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={self.folder}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # The driver is named, so that selenium looks for none, here or elsewhere.
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.command("Page.addScriptToEvaluateOnNewDocument", source=_VIOLATIONS)
        self.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def command(self, name: str, **arguments: object) -> Any:
        """One of the browser's own protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def look(self, width: int, height: int = 900, theme: str = "light") -> None:
        """From now on the window has this size, and the system this theme."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": theme}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def open(self, address: str, page: str = "overview") -> None:
        """Load the dashboard anew, without what was kept of another."""
        self.driver.get("about:blank")
        self.driver.get(f"{address}/#/{page}")
        self.until(lambda: self.all("h1"))

    def go(self, page: str) -> None:
        """To another page of the dashboard that is open, as a link does."""
        self.run("location.hash = arguments[0]", f"#/{page}")
        self.until(lambda: self.all(f".page.{page.partition('?')[0]}"))

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str, text: str = "") -> WebElement:
        """The first that is shown and holds ``text``, as soon as there is one."""
        return self.until(
            lambda: next((e for e in self.all(selector) if e.is_displayed() and text in e.text), None)
        )

    def press(self, text: str, within: str = "") -> None:
        """A button, by what it is called."""
        selector = f"{within} button"
        self.until(
            lambda: next((e for e in self.all(selector) if text in (e.text, e.accessible_name)), None)
        ).click()

    def fill(self, label: str, value: str) -> None:
        """The input of an open dialog with this label."""
        for label_element in self.all("dialog label"):
            if label_element.text == label:
                field = self.all(f"#{label_element.get_attribute('for')}")[0]
                field.clear()
                field.send_keys(value)
                return
        raise AssertionError(f"no {label}: {[e.text for e in self.all('dialog label')]}")

    def until(self, condition: Callable[[], Any], limit_s: float = _LIMIT_S) -> Any:
        """What ``condition`` gives as soon as it gives something."""
        deadline = time.monotonic() + limit_s
        while True:
            try:
                if found := condition():
                    return found
            except StaleElementReferenceException:
                pass  # the page has drawn it anew: look again
            assert time.monotonic() < deadline, self.all("body")[0].text
            time.sleep(0.02)

    def says(self, text: str, selector: str = "main") -> None:
        """Wait until it says so."""
        self.until(lambda: any(text in element.text for element in self.all(selector)))

    def faults(self) -> list[str]:
        """What is wrong with what is shown: audit.js."""
        return self.run(AUDIT)

    def complaints(self) -> list[str]:
        """What went wrong by itself since the last call: errors of scripts, the console's, what the policy
        has forbidden."""
        logged = [entry["message"] for entry in self.driver.get_log("browser")]
        return self.run("return window.violations.splice(0)") + logged

    def picture(self, path: Path) -> None:
        """What is to be seen, as a PNG."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot")["data"]))

    def storage(self) -> dict[str, str]:
        """What the page keeps for this tab."""
        return json.loads(self.run("return JSON.stringify(sessionStorage)"))
