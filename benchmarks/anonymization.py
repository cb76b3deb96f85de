"""Audit the embedded model and the baselines on people it was not trained on.

Runs the audit of `python -m privacy_core audit-anonymization` on the development faces and writes
`docs/results/anonymization.json`, `.md` and `.png`, and the README's table: no picture and nobody's
name. Several processes may share the work: `torchrun --nproc_per_node 2 -m` and its name.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from benchmarks.anonymization_readme import RESULT, ROOT, write
from benchmarks.development_faces import folder
from privacy_core.__main__ import main as command
from privacy_core.audit.anonymization.protocol import NAME

RESULTS = RESULT.parent


def main() -> int:
    """Run the audit, or help another run of it, and keep its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="kept, so that a rerun goes on")
    parser.add_argument("--faces", default="1060", help="a few have no face that can be aligned")
    parser.add_argument("--predictor-faces", default="6000", help="more than there are")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--help-out", action="store_true", help="beside another run of it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    options = ["--out", str(arguments.work), "--faces", arguments.faces, "--keep-work"]
    options += ["--predictor-faces", arguments.predictor_faces]
    if arguments.help_out:
        options.append("--help-out")
    code = command(["audit-anonymization", f"{folder()}/faces-*.parquet", *options])
    if code == 0 and not arguments.help_out:
        RESULTS.mkdir(parents=True, exist_ok=True)
        for kind in ("json", "md", "png"):
            shutil.copyfile(arguments.work / f"{NAME}.{kind}", RESULTS / f"{NAME}.{kind}")
        write(ROOT / "README.md", json.loads(RESULT.read_text(encoding="utf-8")))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
