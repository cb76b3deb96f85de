"""Several processes of one run: threads that exchange what processes exchange, and real ones."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import patch

import datasets
import numpy as np
import torch

from privacy_core.__main__ import main
from privacy_core.audit.anonymization import gather, learning
from privacy_core.audit.anonymization.learning import LearningConfig
from privacy_core.backends import load_backend
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.calibrate import calibration, measuring
from privacy_core.crew import Crew
from privacy_core.schema import StrengthCurve
from tests.ports import free_ports
from tests.privacy_core.people import MarkDetector
from tests.privacy_core.tiny import tiny_model


class Meeting:
    """Where threads wait for each other; whoever met all others is told so even if one left."""

    def __init__(self, size):
        self.n_met = 0
        self._barrier = threading.Barrier(size, action=self._count)

    def _count(self):
        self.n_met += 1

    def waiting(self):
        """Return what one of the threads calls to wait."""
        n_waits = 0

        def wait():
            nonlocal n_waits
            n_waits += 1
            try:
                self._barrier.wait(timeout=60)
            except threading.BrokenBarrierError:
                # A released thread may wake only after another one has ended the meeting.
                if self.n_met < n_waits:
                    raise

        return wait

    def end(self):
        """Fail whoever waits and was not released, now and later."""
        self._barrier.abort()


def together(size, act):
    """Call `act` with each of `size` crew members at once; return what they returned or raised."""
    meeting, given = Meeting(size), [None] * size

    def summing(rank, wait):
        def sum_up(numbers):
            given[rank] = numbers.clone()
            wait()
            total = torch.stack(given).sum(0)
            wait()
            numbers.copy_(total)

        return sum_up

    def member(rank):
        wait = meeting.waiting()
        try:
            return act(Crew(rank, size, wait, summing(rank, wait)))
        except Exception:
            # A launcher ends the others.
            meeting.end()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(member, rank) for rank in range(size)]
    return [future.exception() or future.result() for future in futures]


# --- Real ones ---------------------------------------------------------------------------------

SCRIPT = "import sys; from tests.privacy_core.crews import work; sys.exit(work(sys.argv[1]))"


def start(folder, *commands, size):
    """Start real processes as a launcher does; each runs the commands one after the other."""
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    common |= {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}  # noqa: PTH109
    todo = json.dumps([*zip(commands, free_ports(len(commands)), strict=True)])
    return [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, todo],
            cwd=folder, env={**os.environ, **common, "RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip


def work(todo):
    """Run commands, each with its launcher's port, and return the first exit code but 0.

    Adversaries learn shortly; the fit of a curve, which needs many faces, returns what was
    measured in its place.
    """
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    quick = LearningConfig(width=8, steps=8, batch=16, check_every=4)
    with (
        patch.object(gather, "CHUNK", 4),
        patch.object(measuring, "_CHUNK", 2),
        patch.object(learning, "LearningConfig", lambda *, seed: replace(quick, seed=seed)),
        patch.object(calibration, "fit_curve", everything_measured),
    ):
        for command, port in json.loads(todo):
            # Left groups linger: each command has the port to itself that a launcher gives it.
            os.environ["MASTER_PORT"] = str(port)
            code = main(
                command, load_backend=tiny_backend, detector=MarkDetector(), recogniser=Colours(),
                environment=os.environ,
            )  # fmt: skip
            if code:
                return code
    return 0


def everything_measured(measured, _sigmas, **_):
    (one,) = measured
    facts = {"distances": one.distances.tolist(), "detected": one.detected.tolist()}
    return StrengthCurve((0.0, 0.5, 0.8, 1.0), (0.1, 0.5, 1.0, 2.0), facts)


def tiny_backend(name):
    return EmbeddedBackend(tiny_model()) if name == "embedded" else load_backend(name)


class Colours:
    """Embeds a photo as its mean colours on a grid."""

    name = "colours"

    def embed(self, pixels, _landmarks):
        means = [block.mean((0, 1)) for row in np.array_split(pixels, 4)
                 for block in np.array_split(row, 4, 1)]  # fmt: skip
        return np.stack(means).ravel() / 100
