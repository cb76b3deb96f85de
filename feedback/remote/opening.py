"""Which remote is used: a dataset, a bucket, or none; knows their names and nothing they hold."""

from __future__ import annotations

from feedback.errors import InvalidRatingError
from feedback.remote.base import NullRemote, Remote
from feedback.remote.bucket_remote import BucketRemote
from feedback.remote.dataset_remote import DatasetRemote


def open_remote(
    *,
    dataset: str | None = None,
    bucket: str | None = None,
    token: str | None = None,
    is_known: bool = False,
    endpoint: str | None = None,
) -> Remote:
    """Return the remote that is named, or one that keeps nothing; nothing is asked yet.

    Args:
        dataset: NAME/REPO of a private dataset repository.
        bucket: NAME/BUCKET of a private Storage Bucket.
        token: With the right to write to it.
        is_known: Whether it was seen before: then it is never made again if it is missing.
        endpoint: Of another Hub, None for the usual one.

    Raises:
        InvalidRatingError: Both are named, or a name has another form.
    """
    if dataset and bucket:
        raise InvalidRatingError(
            "`dataset` and `bucket` must not both be named, got both. Name the one to keep "
            "ratings in."
        )
    if dataset:
        return DatasetRemote(dataset, token=token, is_known=is_known, endpoint=endpoint)
    if bucket:
        return BucketRemote(bucket, token=token, is_known=is_known, endpoint=endpoint)
    return NullRemote()
