"""Shards, ratings as parquet in memory: written, read back, cut and merged; knows no file, no Hub.

A shard that is read may come from anyone: whatever is not exactly rows of a schema version that
this program knows is refused as a whole.
"""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from feedback.columns import COLUMNS, SCHEMA_VERSION, features
from feedback.errors import ForeignShardError, InvalidRatingError
from feedback.schema import EncodedColumn, Rating, ratings_of_columns

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROWS = 1_000_000
"""Most rows of one shard; more are refused unread."""
_MAX_BYTES = 1 << 30
_ROWS_PER_GROUP = 100_000
_BY_NAME = {column.name: column for column in COLUMNS}

IsCut = Callable[[str, str, datetime], bool]
"""Whether the row of this rater_id, rating_id and created_at goes."""


@dataclass(frozen=True)
class Cut:
    """A shard without the rows that had to go.

    Attributes:
        data: The shard, the same bytes if no row went, None if no row is left.
        n_cut: Rows that went.
        n_kept: Rows that are left.
    """

    data: bytes | None
    n_cut: int
    n_kept: int


def shard_bytes(ratings: Iterable[Rating]) -> bytes:
    """Return ratings as a parquet file with the schema of `features`.

    No two files have the same bytes, whatever their rows: who removes old content from a remote
    would remove new content of the same bytes with it, and the remote takes nothing it has twice.
    """
    return _to_bytes(table_of(ratings))


def same_rows(data: bytes) -> bytes:
    """Return a shard of this program's with the same rows and, as always, other bytes."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    version = next(v for v in range(SCHEMA_VERSION, 0, -1) if table.schema.equals(_schema(v)))
    return _to_bytes(table.replace_schema_metadata(_schema(version).metadata))


def read_shard(data: bytes, *, path: str) -> list[Rating]:
    """Return the ratings of a shard of any schema version so far.

    Args:
        data: The file's content.
        path: Where it is, for the message.

    Raises:
        ForeignShardError: It is damaged, another program's, or a row breaks a rule.
    """
    return _checked(data, path)[1]


def cut_rows(data: bytes, is_cut: IsCut, *, path: str) -> Cut:
    """Return a shard without the rows that `is_cut` names; the others keep every value.

    Args:
        data: The file's content.
        is_cut: Asked once per row.
        path: Where it is, for the message.

    Raises:
        ForeignShardError: As `read_shard`.
    """
    table, ratings = _checked(data, path)
    kept = [not is_cut(r.rater_id, r.rating_id, r.created_at) for r in ratings]
    n_kept = sum(kept)
    if n_kept == len(kept):
        return Cut(data, 0, n_kept)
    rest = _to_bytes(table.filter(kept)) if n_kept else None
    return Cut(rest, len(kept) - n_kept, n_kept)


def merge_shards(shards: Iterable[tuple[str, bytes]], *, is_cut: IsCut | None = None) -> Cut:
    """Return one shard of the newest schema with the rows of several, the first of each rating.

    Args:
        shards: Path and content of each, of any schema version.
        is_cut: As `cut_rows`; None cuts nothing.

    Returns:
        The shard; rows that were there before count as cut.

    Raises:
        ForeignShardError: As `read_shard`, naming the path.
    """
    import pyarrow as pa  # noqa: PLC0415

    tables = [_schema(SCHEMA_VERSION).empty_table()]
    seen: set[str] = set()
    n_rows = 0
    for path, data in shards:
        table, ratings = _checked(data, path)
        kept = []
        for r in ratings:
            is_new = r.rating_id not in seen
            seen.add(r.rating_id)
            kept.append(is_new and not (is_cut and is_cut(r.rater_id, r.rating_id, r.created_at)))
        n_rows += len(kept)
        tables.append(_to_newest(table.filter(kept)))
    merged = pa.concat_tables(tables)
    n_kept = merged.num_rows
    return Cut(_to_bytes(merged) if n_kept else None, n_rows - n_kept, n_kept)


def table_of(ratings: Iterable[Rating]) -> pa.Table:
    """Return ratings as an Arrow table: labels as integers, the time as a time."""
    # Imported here: Arrow is only needed for parquet.
    import pyarrow as pa  # noqa: PLC0415

    rows = list(ratings)
    schema = _schema(SCHEMA_VERSION)
    arrays = []
    for column, field in zip(COLUMNS, schema, strict=True):
        values: list[Any] = [getattr(row, column.name) for row in rows]
        if column.labels:
            values = list(map(column.labels.index, values))
        arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def parquet_writer(sink: Any, schema: pa.Schema) -> Any:
    """Return a `ParquetWriter` set up as every parquet file of ratings is."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        write_page_index=True,
        use_content_defined_chunking=True,
    )


def _to_bytes(table: pa.Table) -> bytes:
    import pyarrow as pa  # noqa: PLC0415

    sink = pa.BufferOutputStream()
    with parquet_writer(sink, table.schema) as writer:
        writer.add_key_value_metadata({"upload": secrets.token_hex(16)})
        writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
    return bytes(sink.getvalue())


@functools.cache
def _schema(version: int) -> pa.Schema:
    return features(version).arrow_schema


def _to_newest(table: pa.Table) -> pa.Table:
    """Return the table with the columns it lacks as nulls."""
    import pyarrow as pa  # noqa: PLC0415

    schema = _schema(SCHEMA_VERSION)
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.cast(schema)


def _checked(data: bytes, path: str) -> tuple[pa.Table, list[Rating]]:
    """Return the table and its ratings, every rule held against them."""
    import pyarrow as pa  # noqa: PLC0415

    try:
        table, version = _read_table(data, path)
        ratings = ratings_of_columns(_encoded(table))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, ForeignShardError):
            raise
        what = str(error) if isinstance(error, InvalidRatingError) else "it cannot be read"
        raise _foreign(path, what.rstrip(".")) from error
    if any(rating.schema_version > version for rating in ratings):
        raise _foreign(path, f"rows newer than its columns of schema {version}")
    # Only now that every value is known to be short may each row hold its own.
    return table.cast(_schema(version)), ratings


def _read_table(data: bytes, path: str) -> tuple[pa.Table, int]:
    """Return the table of a parquet file that has a known schema, and that schema's version."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    file = pq.ParquetFile(pa.BufferReader(data))
    groups = (file.metadata.row_group(i) for i in range(file.num_row_groups))
    if file.metadata.num_rows > MAX_ROWS or sum(g.total_byte_size for g in groups) > _MAX_BYTES:
        raise _foreign(path, f"more than {MAX_ROWS} rows or {_MAX_BYTES >> 20} MiB")
    found = file.schema_arrow
    for version in range(SCHEMA_VERSION, 0, -1):
        schema = _schema(version)
        if found.equals(schema) and _declared(found) == _declared(schema):
            # Texts stay coded: a long one that each of a million rows points to is held once.
            texts = [field.name for field in schema if pa.types.is_string(field.type)]
            coded = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
            table = coded.read(use_threads=False)
            # The codes of a damaged file may point to no text.
            table.validate(full=True)
            return table.replace_schema_metadata(schema.metadata), version
    if found.names[: len(COLUMNS)] == list(_BY_NAME) and len(found) > len(COLUMNS):
        raise _foreign(path, "columns of a newer version of this program; update it")
    raise _foreign(path, "other columns")


def _declared(schema: pa.Schema) -> Any:
    """Return what the metadata says of the columns as `datasets` has them, labels among it."""
    try:
        return json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _encoded(table: pa.Table) -> dict[str, EncodedColumn]:
    """Return the columns as Python values, each different value made once."""
    import pyarrow as pa  # noqa: PLC0415

    columns = {}
    for name in table.column_names:
        # Made one first: chunks would have dictionaries of their own.
        coded = table[name].unify_dictionaries().combine_chunks()
        if not pa.types.is_dictionary(coded.type):
            coded = coded.dictionary_encode(null_encoding="encode")
        values = [_plain(name, value) for value in coded.dictionary.to_pylist()]
        codes = coded.indices
        if codes.null_count:
            codes, values = codes.fill_null(len(values)), [*values, None]
        columns[name] = EncodedColumn(values, codes.to_pylist())
    for column in COLUMNS:
        if column.name not in columns:
            columns[column.name] = EncodedColumn([None], [0] * table.num_rows)
    return columns


def _plain(name: str, value: Any) -> Any:
    """Return an Arrow value as the field's: a label by name, a time in `datetime`'s own UTC."""
    labels = _BY_NAME[name].labels
    if labels and isinstance(value, int):
        return labels[value] if 0 <= value < len(labels) else value
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def _foreign(path: str, what: str) -> ForeignShardError:
    return ForeignShardError(
        f"{path} must be a shard of ratings written by this program, got {what}. It was left as "
        "it is; move it out of the folder or put a copy in its place.",
        path=path,
    )
