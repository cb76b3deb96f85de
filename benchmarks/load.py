"""Measure the running app under many visitors at once; docs/results/load.json.

Starts `app.py` as a process of its own. Every visitor is a thread with two sessions: a program
that uses the public calls through `gradio_client`, and a browser's tab that opens a photo, turns
the dial, answers blinded pages with consent and downloads. Nobody pauses, so this is more than as
many people would ask for. Afterwards the store is read: every answer that was called saved must be
there, under as many raters as there were visitors, five rows for each page. With `--browser` one
more visitor uses a real Chromium all the while.

Refused is a call that got 429 or 503 with a sentence; the visitor waits and goes on. Anything else
that goes wrong is an error.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from gradio_client import Client, handle_file  # type: ignore[import-untyped]
from PIL import Image

from benchmarks.app_memory import ROOT, Tab, resident_mib, running_app
from benchmarks.browser_visit import Timed, browse
from feedback import DATABASE_NAME, RatingStore
from shell.desk import N_SHOWN
from shell.wording import JUST_RIGHT, KEEP, LETTERS

RESULTS = ROOT / "docs" / "results" / "load.json"
PHOTOS = sorted((ROOT / "examples").glob("*-a.png"))
ROWS = N_SHOWN + 1
PAGES = 2
PAUSE = 2.0
"""Seconds to wait after a refusal."""
PATIENCE = 300.0
"""Seconds until a visitor gives up."""
STRENGTHS = (0.4, 0.6, 0.8)
SENTENCE = 20
"""A refusal of fewer characters says nothing."""
POLITE = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)


@dataclass
class Tally:
    """What all visitors saw; the methods may be called by all at once."""

    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    rows: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, name: str, step: Callable[[], Any]) -> Any:
        """Make a call, note how long it took or what became of it, and return None if nothing."""
        begun = time.perf_counter()
        try:
            value = step()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            self._note(name, error)
            return None
        with self.lock:
            self.seconds[name].append(time.perf_counter() - begun)
        return value

    def _note(self, name: str, error: Exception) -> None:
        refusal = _refusal(error)
        with self.lock:
            if refusal:
                self.refused[refusal] += 1
            else:
                self.errors[f"{name}: {type(error).__name__}: {str(error)[:160]}"] += 1
        if refusal:
            time.sleep(PAUSE)


def _refusal(error: Exception) -> str | None:
    """Return the sentence of a polite refusal, None for anything else."""
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in POLITE:
        error.response.read()
        value = error.response.json()
        said = str(value.get("error") or value.get("detail") or "")
        if len(said) >= SENTENCE:
            return f"{error.response.status_code} {_without_numbers(said)}"
    if "Queue is full" in str(error):
        return "503 Queue is full, as gradio_client says it"
    return None


def _without_numbers(text: str) -> str:
    return "".join("n" if letter.isdigit() else letter for letter in text)


def visit(url: str, number: int, until: float, tally: Tally) -> None:
    """Be one visitor until the time is over."""
    photo = PHOTOS[number % len(PHOTOS)]
    n_rows = 0
    with (
        httpx.Client(base_url=url, timeout=PATIENCE) as http,
        tempfile.TemporaryDirectory() as folder,
    ):
        program = tab = None
        while time.monotonic() < until:
            program = program or tally.call("connect", lambda: _connect(url, folder))
            tab = tab or tally.call("load", lambda: Tab(http))
            if program is not None:
                _use_calls(program, photo, STRENGTHS[number % len(STRENGTHS)], tally)
            if tab is not None and time.monotonic() < until:
                n_rows += _use_page(tab, photo.read_bytes(), number, tally)
    with tally.lock:
        tally.rows.append(n_rows)


def _connect(url: str, folder: str) -> Client:
    return Client(
        url,
        verbose=False,
        download_files=folder,
        analytics_enabled=False,
        # All visitors share one process here, which is slower than the app.
        httpx_kwargs={"timeout": PATIENCE},
    )


def _use_calls(program: Client, photo: Path, strength: float, tally: Tally) -> None:
    """Use the public calls; a picture that is none, or of another size, is an error."""

    def anonymize() -> None:
        path, report = program.predict(
            photo=handle_file(str(photo)), strength=strength, api_name="/anonymize"
        )
        with Image.open(path) as made, Image.open(photo) as given:
            if made.size != given.size or report["strength"] != strength:
                raise RuntimeError("The answer is to another question.")

    tally.call("anonymize", anonymize)
    tally.call(
        "recommend",
        lambda: program.predict([{"strength": 0.6, "just_right": 1}], api_name="/recommend"),
    )


def _use_page(tab: Tab, photo: bytes, number: int, tally: Tally) -> int:
    """Go through the page as a browser does; return how many rows it was told are saved."""

    def open_photo() -> bool:
        tab.open(photo)
        return True

    if not tally.call("open", open_photo):
        return 0
    tally.call("turn", lambda: tab.call("turn", 0.65))
    n_rows = 0
    for _ in range(PAGES):
        asked = tally.call("ask", lambda: tab.call("ask"))
        token = next((value for value in asked or () if str(value).startswith("p1.")), None)
        if token is None:
            continue
        clicks = (token, LETTERS[number % N_SHOWN], JUST_RIGHT[number % 5], None, [KEEP])
        answered = tally.call("answer", functools.partial(tab.call, "answer", *clicks))
        n_rows += ROWS * any("**Saved.**" in str(value) for value in answered or ())
    tally.call("download", lambda: tab.call("download", 0.65))
    return n_rows


def watch(process: Any, http: httpx.Client, stopped: threading.Event, tally: Tally) -> None:
    """Note memory and queue every second."""
    while not stopped.wait(1):
        tally.memory.append(resident_mib(process))
        health = tally.call("health", lambda: http.get("/health").raise_for_status().json())
        tally.queue.append(health["queue_length"] if health else -1)


def measure(n_visitors: int, seconds: float, *, has_browser: bool) -> dict[str, Any]:
    """Return what a run found."""
    tally, browsing = Tally(), Timed()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        with running_app(Path(folder)) as (process, http, _):
            stopped = threading.Event()
            threading.Thread(target=watch, args=[process, http, stopped, tally]).start()
            until = time.monotonic() + seconds
            visitors = [
                threading.Thread(target=visit, args=[str(http.base_url), i, until, tally])
                for i in range(n_visitors)
            ]
            if has_browser:
                seen = [str(http.base_url), until, browsing]
                visitors.append(threading.Thread(target=browse, args=seen))
            for thread in visitors:
                thread.start()
            for thread in visitors:
                thread.join()
            stopped.set()
            health = http.get("/health").json()
        with RatingStore(Path(folder) / DATABASE_NAME) as store:
            stored = Counter(row.rater_id for row in store.ratings())
    return {
        "visitors": n_visitors,
        "seconds": seconds,
        "processor_load": {"before": round(load_before, 1), "after": round(os.getloadavg()[0], 1)},
        "errors": dict(tally.errors),
        "refused": dict(tally.refused),
        "refused_by_rate": health["refused_requests"],
        "longest_queue": max(tally.queue, default=0),
        "acknowledged_rows": sum(tally.rows),
        "stored_rows": stored.total(),
        "raters_mixed_up": sorted(stored.values()) != sorted(n for n in tally.rows if n),
        "resident_mib": _memory(tally.memory),
        "calls": {name: _times(values) for name, values in sorted(tally.seconds.items())},
        **({"browser": browsing.summary()} if has_browser else {}),
    }


def _memory(values: list[float]) -> dict[str, int]:
    half = values[len(values) // 2 :]
    return {
        "first": round(values[0]),
        "most": round(max(values)),
        "grown_in_second_half": round(half[-1] - half[0]),
    }


def _times(values: list[float]) -> dict[str, float]:
    return {
        "n": len(values),
        "median_s": round(statistics.median(values), 3),
        "p95_s": round(sorted(values)[int(0.95 * len(values))], 3),
    }


def main() -> int:
    """Measure, and put the run beside those with other numbers of visitors; 1 if it went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--browser", action="store_true", help="one visitor more, in Chromium")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    run = measure(options.visitors, options.seconds, has_browser=options.browser)
    before = json.loads(options.out.read_text("utf-8"))["runs"] if options.out.exists() else []
    others = [one for one in before if one["visitors"] != run["visitors"]]
    result = {
        "schema_version": 1,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "runs": sorted([*others, run], key=lambda one: int(one["visitors"])),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(run, indent=1))
    is_whole = run["acknowledged_rows"] == run["stored_rows"] and not run["raters_mixed_up"]
    is_clean = not run["errors"] and not run.get("browser", {}).get("errors")
    return 0 if is_whole and is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
