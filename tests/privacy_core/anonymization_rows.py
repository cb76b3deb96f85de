"""Photos of nobody for every part of the anonymization audit."""

from privacy_core.diffusion.prepare import split_of
from tests.privacy_core.people import BROKEN, NO_FACE, photo_png


def names(low, high, n):
    """Return `n` identities whose split lies in [low, high]."""
    found = (name for i in range(10_000) if low <= split_of(name := f"nobody-{i}", "") <= high)
    return [next(found) for _ in range(n)]


def rows_of_people(low, high, n_people, n_photos, *, marks=None):
    """Return photos of people of some splits, with labels that take turns."""
    marks = marks or {}
    return [
        {
            "image": {
                "bytes": photo_png(100 * low + 7 * p + i, marks.get((p, i), 0)),
                "path": None,
            },
            "identity": name,
            "gender": ("female", "male")[p % 2],
            "smiling": ("no", "yes")[i % 2],
            "source": "drawn",
        }
        for p, name in enumerate(names(low, high, n_people))
        for i in range(n_photos)
    ]


def all_rows():
    """Return a data set with people for every part; one photo tested shows no face."""
    rows = [
        *rows_of_people(80, 99, 12, 2, marks={(0, 1): NO_FACE, (1, 0): BROKEN}),
        *rows_of_people(60, 69, 10, 2),
        *rows_of_people(0, 29, 4, 2),
        *rows_of_people(30, 59, 4, 2),
    ]
    rows[5]["source"] = "https://example.org/nobody.png"
    return rows
