"""What all tests share: a quiet offline process, one photo, the browser, and no silent skip."""

from __future__ import annotations

import os
import shutil
import socket

import numpy as np
import pytest
from hypothesis import settings

REQUIRE_TOOLS = "PRIVACY_DIAL_REQUIRE_TOOLS"
"""Set by `.ci/run`: there a skipped test is a failed one."""
LONG = {"test_whole_loop.py", "test_processes.py", "test_hub_backends.py", "test_audit_command.py"}

# Before torch and gradio are imported. Two threads beside another busy process are far slower
# than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Uploads by Xet go to another server than the Hub; `hub_server` speaks what they replace.
os.environ["HF_HUB_DISABLE_XET"] = "1"

# Time limits of single examples measure the machine, not the code.
settings.register_profile("privacy-dial", deadline=None, derandomize=REQUIRE_TOOLS in os.environ)
settings.load_profile("privacy-dial")


def _require_tools(report):
    """Turn a skip into a failure where every tool has to be present."""
    if REQUIRE_TOOLS in os.environ and report.skipped and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} ({REQUIRE_TOOLS} is set, so nothing may be skipped.)"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return _require_tools((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return _require_tools((yield))


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no process waits for another's last one."""
    items.sort(
        key=lambda item: not item.path.match("tests/browser/*") and item.path.name not in LONG
    )


@pytest.fixture(autouse=True)
def only_this_machine(request, monkeypatch):
    """Fail a test that connects to another machine, unless it is marked `network`."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def connect_here(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in {"localhost", "::1", "0.0.0.0"} and not str(host).startswith("127."):  # noqa: S104
            pytest.fail(f"The test connects to {host}; mark it `network` or use a local server.")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture(scope="session")
def astronaut():
    """A public-domain portrait with one face, (512, 512, 3) uint8, read-only."""
    from skimage import data

    pixels = np.array(data.astronaut())
    pixels.setflags(write=False)
    return pixels


@pytest.fixture(scope="session")
def chromium():
    """The path of an installed Chromium; without one the test is skipped with this line."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("Chromium is not installed (Debian, Ubuntu: apt-get install chromium).")
    return path
