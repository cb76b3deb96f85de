"""Whose dial governs whose faces: the table of raters and subjects; knows no rating.

A rater may decide for several subjects; a subject has one rater.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from feedback.errors import InvalidRatingError
from feedback.wholefile import whole_file

HEADER = ("rater_id", "subject")
_MAX_SUBJECT = 200


def read_links(path: Path) -> dict[str, str]:
    """Read a table of links: CSV in UTF-8 with the header `rater_id,subject`.

    Args:
        path: The file.

    Returns:
        Subject to rater_id, in the order of the file.

    Raises:
        InvalidRatingError: The file cannot be read, or lines break rules; all of them are listed.
            Messages name lines, never subjects.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InvalidRatingError(
            f"`links` must be a readable CSV file in UTF-8, got: {reason}. "
            f"Write it with the header {','.join(HEADER)}."
        ) from error
    header = tuple(cell.strip() for cell in rows[0][1]) if rows else ()
    if sorted(header) != sorted(HEADER):
        raise InvalidRatingError(
            f"`links` must have the header {','.join(HEADER)}, got {len(header)} other columns. "
            "Put it on the first line."
        )
    return _checked(header, rows[1:])


def write_links(path: Path, links: Iterable[tuple[str, str]]) -> int:
    """Write pairs of rater_id and subject, replacing the file, and return how many.

    Raises:
        ExportError: The file cannot be written.
    """
    pairs = list(links)
    with whole_file(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(pairs)
    return len(pairs)


def read_subjects(text: str) -> tuple[str, ...]:
    """Return subjects to make links for: a number of them, or a file with one per line.

    Raises:
        InvalidRatingError: The number is out of range, the file cannot be read, or its lines are
            no subjects.
    """
    most = 100_000
    if text.isdecimal():
        if not 1 <= int(text) <= most:
            raise InvalidRatingError(f"`subjects` must be from 1 to {most}, got {text}.")
        return tuple(f"subject-{number:04}" for number in range(1, int(text) + 1))
    try:
        lines = Path(text).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRatingError(
            "`subjects` must be a number or a text file with one subject per line, got neither. "
            "Try `--subjects 10`."
        ) from error
    subjects = tuple(line.strip() for line in lines if line.strip())
    bad = [s for s in subjects if not _is_subject(s)]
    if bad or not subjects or len(set(subjects)) < len(subjects):
        raise InvalidRatingError(
            f"`subjects` must be different names of 1 to {_MAX_SUBJECT} characters, one per line, "
            f"got {len(subjects)} lines, {len(bad)} of them no names, "
            f"{len(set(subjects))} different."
        )
    return subjects


def _checked(header: tuple[str, ...], rows: list[tuple[int, list[str]]]) -> dict[str, str]:
    rater_at, subject_at = header.index("rater_id"), header.index("subject")
    links: dict[str, str] = {}
    lines: dict[str, list[int]] = {}
    problems = []
    for number, row in rows:
        if len(row) != len(HEADER):
            problems.append(f"Line {number}: there must be 2 columns, got {len(row)}.")
            continue
        rater, subject = row[rater_at].strip(), row[subject_at].strip()
        if not re.fullmatch(r"[0-9a-f]{32}", rater):
            problems.append(
                f"Line {number}: `rater_id` must be 32 lower-case hexadecimal digits, "
                f"got {len(rater)} characters."
            )
        if not _is_subject(subject):
            problems.append(
                f"Line {number}: `subject` must be 1 to {_MAX_SUBJECT} printable characters, "
                f"got {len(subject)}."
            )
        links[subject] = rater
        lines.setdefault(subject, []).append(number)
    problems += [
        f"Lines {', '.join(map(str, numbers))}: a subject must have one rater, got it "
        f"{len(numbers)} times. Keep one of the lines."
        for numbers in lines.values()
        if len(numbers) > 1
    ]
    if problems:
        raise InvalidRatingError(*problems)
    return links


def _is_subject(text: str) -> bool:
    return 1 <= len(text) <= _MAX_SUBJECT and text.isprintable()
