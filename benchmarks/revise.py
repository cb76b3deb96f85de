"""Measure `revise`: speed against the anonymizer's own, memory over rows; docs/results/revise.json.

The anonymizer's own speed is that of the same photos from file bytes to file bytes, in batches of
64, without a data set around them, compared in CPU seconds. Memory is measured with solid patches
at a fixed place, so that 20,000 rows take minutes; each measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyarrow import parquet
from skimage.data import astronaut

from privacy_core.anonymize import Anonymizer, anonymize_batch
from privacy_core.backends import load_backend
from privacy_core.dataset import read_dataset
from privacy_core.faces import FaceDetector, default_detector, encode_png, read_photo
from privacy_core.faces.align import TEMPLATE
from privacy_core.noise import NoiseKey
from privacy_core.revise.preferences import Preferences
from privacy_core.revise.rows import BATCH, RowRules
from privacy_core.revise.run import ReviseConfig, revise
from privacy_core.revise.survey import survey_rows
from privacy_core.schema import RGB, Face, Variant

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
_DIFFERENT = 64
_STRENGTH = 0.8


class FixedFace:
    """Finds one face where the photos have it, so that no time goes into looking."""

    name = "fixed"

    def detect(self, pixels: RGB) -> list[Face]:
        """Return that face."""
        half = pixels.shape[0] / 2
        box = (half - 52, half - 52, half + 52, half + 52)
        return [Face(box, TEMPLATE + (half - 64), 1.0, self.name)]


def photos() -> list[bytes]:
    """Return different 192 px photos cut around the astronaut's face, as JPEG."""
    picture, found = Image.fromarray(astronaut()), []
    for i in range(_DIFFERENT):
        left, top = 125 + i % 8, 25 + i // 8
        buffer = io.BytesIO()
        picture.crop((left, top, left + 192, top + 192)).save(buffer, "JPEG", quality=92)
        found.append(buffer.getvalue())
    return found


def write_data(path: Path, n_rows: int) -> None:
    """Write `n_rows` rows of 8 per subject, batch by batch; photos repeat after 64."""
    cut = photos()
    schema = pa.schema([("image", pa.binary()), ("subject", pa.string()), ("label", pa.int64())])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, n_rows, _DIFFERENT):
            rows = [
                {"image": cut[i % _DIFFERENT], "subject": f"p{i // 8}", "label": i % 2}
                for i in range(start, min(start + _DIFFERENT, n_rows))
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def measure_revise(data: Path, out: Path, backend: str) -> dict[str, Any]:
    """Revise once and return seconds and the largest memory of this process."""
    torch.set_num_threads(1)
    detector: FaceDetector = FixedFace() if backend == "solid" else default_detector()
    anonymizer = Anonymizer(load_backend(backend), detector)
    source = read_dataset(data)
    rules = RowRules(Preferences({}, _STRENGTH))
    started, used = time.perf_counter(), time.process_time()
    survey = survey_rows(source, subject_column="subject")
    surveyed = time.perf_counter()
    revision = revise(source, survey, rules, out, anonymizer=anonymizer, config=ReviseConfig())
    done = time.perf_counter()
    return {
        "backend": backend,
        "rows": len(source),
        "revised": revision["counts"]["by_status"].get("revised", 0),
        "survey_seconds": round(surveyed - started, 2),
        "seconds": round(done - started, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def measure_anonymizer(data: Path) -> dict[str, Any]:
    """Anonymize the same rows without a data set, and return seconds."""
    torch.set_num_threads(1)
    anonymizer = Anonymizer(load_backend("embedded"), default_detector())
    mark = anonymizer.backend.digital_source_type
    encoded = [row["image"] for row in read_dataset(data)]
    started, used = time.perf_counter(), time.process_time()
    n_bytes = 0
    for start in range(0, len(encoded), BATCH):
        opened = [
            anonymizer.open(read_photo(photo), key=NoiseKey.fresh())
            for photo in encoded[start : start + BATCH]
        ]
        for variant in anonymize_batch([(photo, _STRENGTH) for photo in opened]):
            if isinstance(variant, Variant):
                n_bytes += len(encode_png(variant.image, digital_source_type=mark))
    return {
        "rows": len(encoded),
        "bytes": n_bytes,
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
    }


def _in_own_process(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(  # noqa: S603  (this file, with numbers)
        [sys.executable, "-m", "benchmarks.revise", *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(speed_rows: int, repeats: int, memory_rows: list[int]) -> dict[str, Any]:
    """Return all figures; the two speeds alternate, so that a busy machine slows both."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_data(place / "speed.parquet", speed_rows)
        own, whole = [], []
        for i in range(repeats):
            data = str(place / "speed.parquet")
            own.append(_in_own_process("--child", "anonymizer", data))
            whole.append(_in_own_process("--child", "embedded", data, str(place / f"s{i}")))
        best_own, best = (min(float(run["cpu_seconds"]) for run in runs) for runs in (own, whole))
        memory = []
        for n_rows in memory_rows:
            write_data(place / f"{n_rows}.parquet", n_rows)
            memory.append(
                _in_own_process(
                    "--child", "solid", str(place / f"{n_rows}.parquet"), str(place / f"m{n_rows}")
                )
            )
    return {
        "speed": {
            "rows": speed_rows,
            "anonymizer_rows_per_cpu_second": round(speed_rows / best_own, 1),
            "revise_rows_per_cpu_second": round(speed_rows / best, 1),
            "revise_time_over_anonymizer": round(best / best_own, 3),
            "runs": {"anonymizer": own, "revise": whole},
        },
        "memory": memory,
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed-rows", type=int, default=640)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-rows", type=int, nargs="*", default=[1000, 20_000])
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, data, *out = arguments.child
        if kind == "anonymizer":
            print(json.dumps(measure_anonymizer(Path(data))))
        else:
            print(json.dumps(measure_revise(Path(data), Path(out[0]), kind)))
        return
    result = {
        "machine": platform.machine(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": 1,
        "photos": "192 px JPEG, one face each",
        **measure(arguments.speed_rows, arguments.repeats, arguments.memory_rows),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "revise.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
