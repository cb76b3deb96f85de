"""Revised rows → one parquet file and the note about it; how many rows a file holds.

Knows columns and rows; not which files there are, which process makes one, or where it lies.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from privacy_core.errors import InvalidArgumentError
from privacy_core.revise.columns import ColumnPlan
from privacy_core.revise.rows import BATCH, WITHHELD, RevisedRow, RowReviser
from privacy_core.revise.survey import Report, Survey

MOST_ROWS = 512
"""Of one file, unless that makes more than `MOST_SHARDS`; a stop costs each process at most one."""
MOST_SHARDS = 10_000
"""Files in one folder; the Hub recommends no more."""
_SHARED_SHARDS = 64


def rows_per_shard(n_rows: int) -> int:
    """Return how many rows to write into one file: whole batches, by the number of rows alone.

    Small data has small files, so that several processes have something to share; a billion rows
    have large ones, so that a folder can hold them.

    Args:
        n_rows: Rows of the data set, at least 1.

    Example:
        >>> [rows_per_shard(n) for n in (10, 2_000, 20_000, 1_000_000, 1_000_000_000)]
        [64, 64, 320, 512, 100032]
    """
    shared = min(-(-n_rows // _SHARED_SHARDS), MOST_ROWS)
    return -(-max(shared, -(-n_rows // MOST_SHARDS)) // BATCH) * BATCH


@dataclass(frozen=True)
class ShardWriter:
    """Writes one shard into the file it is called with and returns what to note about it.

    Attributes:
        reviser: Makes the revised rows.
        plan: What becomes of each column.
        survey: Says who is shown in which row.
        master: Secret; makes the pseudonyms.
        rows: The shard's original rows.
        first: Number of the first of them.
        file: The shard's name in the data set.
        report: Called with stage, done, total.
    """

    reviser: RowReviser = field(repr=False)
    plan: ColumnPlan
    survey: Survey
    master: bytes = field(repr=False)
    _: KW_ONLY
    rows: Iterator[dict[str, Any]] = field(repr=False)
    first: int
    file: str
    report: Report | None = None

    def __call__(self, path: Path) -> dict[str, Any]:
        """Write the file."""
        counts: Counter[str] = Counter()
        withheld: list[dict[str, object]] = []
        subjects: dict[str, dict[str, Any]] = {}
        with parquet.ParquetWriter(path, self.plan.features.arrow_schema) as writer:
            for batch in self.reviser.batches(self._numbered()):
                _write_batch(writer, batch, self.plan)
                for row in batch:
                    counts[row.status] += 1
                    if row.status in WITHHELD:
                        withheld.append({"row": row.number, "status": row.status})
                    self._account(row, subjects)
                if self.report is not None:
                    self.report("Anonymizing", batch[-1].number + 1, self.survey.n_rows)
        return {
            "file": self.file,
            "counts": dict(counts),
            "withheld": withheld,
            "subjects": subjects,
        }

    def _numbered(self) -> Iterator[tuple[int, str | None, dict[str, Any]]]:
        dropped = set(self.plan.dropped)
        for number, row in enumerate(self.rows, self.first):
            kept = {name: value for name, value in row.items() if name not in dropped}
            yield number, self.survey.subject(number), kept

    def _account(self, row: RevisedRow, subjects: dict[str, dict[str, Any]]) -> None:
        """Add what one row costs its subject: μ² adds up over independent noises."""
        if row.subject is None or row.status != "revised" or row.columns is None:
            return
        key = subject_key(self.master, row.subject)
        account = subjects.setdefault(key, {"n_rows": 0, "mu_squared": 0.0, "reason": None})
        account["n_rows"] += 1
        account["strength"] = row.columns["strength"]
        if row.mu is None:
            account["reason"] = account["reason"] or row.reason
        else:
            account["mu_squared"] += row.mu**2


def subject_key(master: bytes, subject: str) -> str:
    """Return the pseudonym of a subject, 32 hex digits; meaningless once the key is destroyed."""
    message = f"privacy-dial subject {subject}".encode(errors="surrogatepass")
    return hmac.digest(master, message, "sha256").hex()[:32]


def _write_batch(
    writer: parquet.ParquetWriter, batch: Sequence[RevisedRow], plan: ColumnPlan
) -> None:
    rows = [plan.features.encode_example(r.columns) for r in batch if r.columns is not None]
    try:
        table = pa.Table.from_pylist(rows, schema=plan.features.arrow_schema)
    except pa.ArrowException as error:
        raise InvalidArgumentError(
            f"`DATA` must have columns that parquet can hold, got rows from {batch[0].number} on "
            f"that it cannot ({type(error).__name__}). Name the odd column in `--drop-columns`."
        ) from error
    if rows:
        writer.write_table(table)
