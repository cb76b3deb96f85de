"""Measure the running app: time to its first answer, memory over a hundred ladders, the slider.

Starts `app.py` as a process of its own and talks HTTP to it as a browser does. Writes
`docs/results/app.json`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from skimage.data import astronaut
from tqdm import trange

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "app.json"
API = "/gradio_api"
MEBIBYTE = 2**20
TURNS = 40


@contextmanager
def running_app(data_dir: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client, float]]:
    """Yield the app's process, a client, and the seconds from start to its first answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PRIVACY_DIAL_DATA_DIR": str(data_dir)}
    started = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own file
        [sys.executable, "app.py", "--port", str(port)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            yield process, client, _first_answer(process, client, started)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _first_answer(process: subprocess.Popen[bytes], client: httpx.Client, started: float) -> float:
    while process.poll() is None and time.perf_counter() - started < 120:
        try:
            if client.get("/").status_code == httpx.codes.OK:
                return time.perf_counter() - started
        except httpx.TransportError:
            time.sleep(0.02)
    raise RuntimeError("The app ended or gave no answer for two minutes; run it by hand to see.")


class Tab:
    """One browser tab: calls handlers by their names in `app.py`."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.session = secrets.token_hex(8)
        config = client.get("/config").json()
        kept = {"state": None, "browserstate": ""}
        self.kept = {c["id"]: kept[c["type"]] for c in config["components"] if c["type"] in kept}
        self.endpoints = {d["api_name"]: d for d in config["dependencies"]}

    def call(self, name: str, *values: object) -> Any:
        """Return the outputs of a handler."""
        endpoint, given = self.endpoints[name], iter(values)
        data = [self.kept[i] if i in self.kept else next(given) for i in endpoint["inputs"]]
        body = {"fn_index": endpoint["id"], "data": data, "session_hash": self.session}
        if not endpoint["queue"]:
            response = self.client.post(f"{API}/run/predict", json=body)
            response.raise_for_status()
            return self._remember(endpoint, response.json()["data"])
        self.client.post(f"{API}/queue/join", json=body).raise_for_status()
        address = f"{API}/queue/data?session_hash={self.session}"
        with self.client.stream("GET", address) as events:
            for line in events.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(f"{name}: {message['output']}")
                    return self._remember(endpoint, message["output"]["data"])
        raise RuntimeError(f"{name}: no answer")

    def _remember(self, endpoint: dict[str, Any], outputs: list[Any]) -> list[Any]:
        """Keep what a browser keeps: its sealed history, which is a text."""
        for number, value in zip(endpoint["outputs"], outputs, strict=True):
            if isinstance(self.kept.get(number), str) and isinstance(value, str):
                self.kept[number] = value
        return outputs

    def open(self, photo: bytes) -> None:
        """Upload a photo and wait for its first variant."""
        sent = self.client.post(f"{API}/upload", files={"files": ("photo.jpg", photo)})
        path = sent.raise_for_status().json()[0]
        self.call("open_upload", {"path": path, "meta": {"_type": "gradio.FileData"}})


def resident_mib(process: subprocess.Popen[bytes]) -> float:
    """Return the process's resident memory."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE


def measure(n_ladders: int, side: int) -> dict[str, object]:
    """Return the figures; every ladder is a new visitor's photo and blinded page."""
    photo = io.BytesIO()
    Image.fromarray(astronaut()).resize((side, side)).save(photo, "JPEG", quality=92)
    memory: dict[int, float] = {}
    turns = []
    with (
        tempfile.TemporaryDirectory() as folder,
        running_app(Path(folder)) as (process, client, start_s),
    ):
        at_start = resident_mib(process)
        for i in trange(1, n_ladders + 1, desc="ladders"):
            tab = Tab(client)
            tab.open(photo.getvalue())
            tab.call("ask")
            if i in {10, n_ladders}:
                memory[i] = resident_mib(process)
        tab.call("leave")
        for i in range(TURNS):
            begin = time.perf_counter()
            tab.call("turn", 0.05 * (1 + i % 20))
            turns.append(1000 * (time.perf_counter() - begin))
    return {
        "schema_version": 1,
        "python": platform.python_version(),
        "processor_load": os.getloadavg()[0],
        "photo_side": side,
        "first_answer_s": round(start_s, 2),
        "resident_mib": {"start": round(at_start)}
        | {f"after_{n}_ladders": round(mib) for n, mib in memory.items()},
        "turn_ms": {
            "median": round(statistics.median(turns), 1),
            "p95": round(sorted(turns)[int(0.95 * len(turns))], 1),
            "n": len(turns),
        },
    }


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ladders", type=int, default=100)
    parser.add_argument("--side", type=int, default=1024, help="photo's side in pixels")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    result = measure(options.ladders, options.side)
    text = json.dumps(result, indent=1)
    options.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
