#!/usr/bin/env python3
"""Opens the HTML report in Chromium, as its readers do, and says what is wrong with it.

    python3 tools/check_html_report.py target/release/normative
    python3 tools/check_html_report.py target/release/normative --screenshot docs/report.png

It needs chromium and chromedriver, and no Python package. At 1280 and at 400 pixels: the console has no error, nothing is
fetched, the page is no wider than the window, no text runs out of its box, every kind of failure opens and closes, each
plot is as wide as its box. Exit status 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

SIZES = ((1280, 900), (400, 800))

#: What the page says of itself.
PROBE = """
const box = element => element.getBoundingClientRect();
const wide = [...document.querySelectorAll('p, h1, h2, summary, figcaption, th, td')].filter(
  element => !element.closest('.scroll') && box(element).right > innerWidth + 1);
return {
  title: document.title,
  scroll: document.documentElement.scrollWidth,
  width: innerWidth,
  wide: wide.map(element => element.textContent.slice(0, 60)),
  fetched: performance.getEntriesByType('resource').map(entry => entry.name),
  failures: document.querySelectorAll('details').length,
  headings: [...document.querySelectorAll('h2')].map(element => element.textContent),
  plots: [...document.querySelectorAll('svg')].map(element => [box(element).width, box(element.parentElement).width]),
  cells: document.querySelectorAll('.matrix tbody td').length,
  small: [...document.querySelectorAll('p, td, th, code')].filter(
    element => parseFloat(getComputedStyle(element).fontSize) < 11).length,
};
"""


class Browser:
    """Chromium behind chromedriver, by the WebDriver protocol."""

    def __init__(self, folder: Path) -> None:
        command = ["chromedriver", "--port=0"]
        self.driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.driver.stdout
        line = next(line for line in self.driver.stdout if "successfully" in line)
        self.base = f"http://127.0.0.1:{line.split('port ')[1].strip(' .' + chr(10))}/session"
        switches = ["headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"]
        switches += ["disable-component-update", "disable-sync", "hide-scrollbars", f"user-data-dir={folder}"]
        options = {"args": [f"--{switch}" for switch in switches]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self.send("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.base += f"/{answer['sessionId']}"

    def send(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        # The driver is on this machine: no proxy stands between.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            return json.load(response)["value"]

    def run(self, script: str) -> Any:
        return self.send("POST", "/execute/sync", {"script": script, "args": []})

    def resize(self, width: int, height: int) -> None:
        """Makes the page that large: emulated, since a window has a least width."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.cdp("Emulation.setDeviceMetricsOverride", metrics)

    def cdp(self, command: str, parameters: dict[str, Any]) -> Any:
        return self.send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def close(self) -> None:
        self.send("DELETE", "")
        self.driver.terminate()
        self.driver.wait()


def faults(browser: Browser, page: Path, width: int, height: int, failing: bool) -> list[str]:
    """What is wrong with a page at a size."""
    browser.resize(width, height)
    browser.send("POST", "/url", {"url": page.as_uri()})
    said = browser.run(PROBE)
    found = [f"console: {entry['message']}" for entry in browser.send("POST", "/se/log", {"type": "browser"})]
    if said["width"] != width or said["scroll"] > width:
        found.append(f"it is {said['scroll']} pixels wide in a window of {said['width']}")
    found += [f"it runs out of the window: {text}" for text in said["wide"]]
    found += [f"it fetches {name}" for name in said["fetched"]]
    found += [f"a plot is {plot:.0f} pixels wide in {box:.0f}" for plot, box in said["plots"] if abs(plot - box) > 2]
    found += [f"{said['small']} texts are smaller than 11 pixels"] if said["small"] else []
    expected = {"What was judged", "Operations and checks", "Errors as multiples of their bounds"}
    if missing := (expected | ({"What is wrong"} if failing else set())) - set(said["headings"]):
        found.append(f"missing: {', '.join(sorted(missing))}")
    if not said["plots"] or not said["cells"] or (said["failures"] > 0) != failing:
        found.append(f"{len(said['plots'])} plots, {said['cells']} cells, {said['failures']} failures")
    if failing:
        toggled = browser.run(
            "const all = [...document.querySelectorAll('details')]; const before = all.map(each => each.open);"
            "all.forEach(each => each.querySelector('summary').click());"
            "return all.every((each, i) => each.open !== before[i]);"
        )
        found += [] if toggled else ["a failure does not open and close"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("normative", type=Path, help="the program")
    parser.add_argument("--screenshot", type=Path, help="writes what a failing report looks like at 1280 pixels")
    arguments = parser.parse_args()
    if missing := [name for name in ("chromium", "chromedriver") if not shutil.which(name)]:
        parser.error(f"there is no {missing[0]} here")
    wrong = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(Path(folder) / "profile")
        try:
            for name, options in {
                "a failing layer": ["--builtin", "eps_outside_root"],
                "a layer with many kinds of failure": ["--builtin", "half_statistics"],
                "the suite itself": [],
            }.items():
                page = Path(folder) / "report.html"
                command = [arguments.normative.resolve(), "check", *options, "--format", "html", "--report", page]
                command += ["--failures", Path(folder) / "failures"]
                status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
                for width, height in SIZES:
                    found = faults(browser, page, width, height, failing=bool(options))
                    found += [] if status == (1 if options else 0) else [f"normative ended with {status}"]
                    print(f"{name}, {width} pixels: {'; '.join(found) or 'ok'}")
                    wrong += len(found)
                if arguments.screenshot and name == "a failing layer":
                    browser.resize(1280, 1500)
                    browser.send("POST", "/url", {"url": page.as_uri()})
                    image = base64.b64decode(browser.send("GET", "/screenshot"))
                    arguments.screenshot.write_bytes(image)
        finally:
            browser.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
