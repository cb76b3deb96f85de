"""One visitor with a real browser, over and over, while others load the app; for `load.py`.

Needs playwright and an installed Chromium. Everything is done as a person does it: a click on an
example, arrow keys on the dial, a page of four answered.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, sync_playwright

VARIANT = "Your photo with the faces replaced"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
STEPS = 6
"""Arrow keys per visit."""


class Timed:
    """Seconds per step, and what went wrong."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.errors: list[str] = []

    def step(self, name: str, action: Callable[[], Any], *, since: float | None = None) -> None:
        """Do a step and note how long it took, from its beginning or an earlier moment."""
        begun = time.perf_counter() if since is None else since
        action()
        self.seconds[name].append(time.perf_counter() - begun)

    def summary(self) -> dict[str, Any]:
        """Return counts, medians and worst cases."""
        return {
            "errors": self.errors,
            "steps": {
                name: {
                    "n": len(values),
                    "median_s": round(statistics.median(values), 3),
                    "worst_s": round(max(values), 3),
                }
                for name, values in self.seconds.items()
            },
        }


def browse(url: str, until: float, timed: Timed) -> None:
    """Visit until the time is over; a visit that fails is noted and the next one begins."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=list(ARGUMENTS),
        )
        while time.monotonic() < until:
            context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 800})
            context.set_default_timeout(60_000)
            try:
                _visit(context.new_page(), url, timed)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                timed.errors.append(f"{type(error).__name__}: {str(error)[:200]}")
            context.close()
        browser.close()


def _visit(tab: Page, url: str, timed: Timed) -> None:
    landed = time.perf_counter()
    tab.goto(url, wait_until="domcontentloaded")
    tab.on("pageerror", lambda error: timed.errors.append(str(error)[:200]))
    timed.step("landing to a ladder made beforehand", tab.locator("#preview img").first.wait_for,
               since=landed)  # fmt: skip
    tab.locator("#examples button").first.click()
    timed.step("landing to the first variant", tab.locator(f'img[alt="{VARIANT}"]').wait_for,
               since=landed)  # fmt: skip
    dial = tab.locator("#strength input[type=range]")
    dial.focus()
    for _ in range(STEPS):
        before = tab.get_attribute(f'img[alt="{VARIANT}"]', "src")

        def turn(before: str | None = before) -> None:
            tab.keyboard.press("ArrowLeft")
            tab.wait_for_function(
                "([alt, old]) => document.querySelector(`img[alt='${alt}']`).src !== old",
                arg=[VARIANT, before], polling=10,
            )  # fmt: skip

        timed.step("a step of the dial", turn)
    tab.get_by_role("button", name="Find your dial").click()
    tab.get_by_alt_text("Variant D").wait_for()
    tab.get_by_role("radio", name="C", exact=True).check()
    tab.get_by_role("radio", name="Just right").check()
    tab.get_by_role("button", name="Show the strengths").click()
    chart = tab.get_by_role("img", name="Your preferred strength on the dial")
    timed.step("landing to the first dial", chart.wait_for, since=landed)
