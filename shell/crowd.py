"""The *Crowd* page: what a public data set holds, read at most once an hour, and its sentences.

Knows the published part only; nothing of this server's own store comes here.
"""

from __future__ import annotations

import base64
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape

from feedback import FeedbackError
from feedback.columns import Source
from feedback.publish.crowd import CrowdView, crowd_view
from feedback.publish.publishing import public_dataset
from feedback.publish.reading import Publication, PublicRelease, read_publication
from shell.crowd_chart import (
    answers_chart,
    answers_csv,
    answers_sentence,
    population_chart,
    population_csv,
    population_sentence,
    saved,
)

CROWD_INTRO = """
What raters prefer, from the **published** data set only: answers of people who agreed to
publication row by row, in cells of at least ten raters, and releases with differential privacy.
"""
EVERYTHING = "all"
SOURCE_CHOICES = (
    ("All photos", EVERYTHING),
    ("Raters' own photos", "own_photo"),
    ("Examples", "demo_photo"),
    ("People who do not exist", "synthetic_face"),
)
FRESH_SECONDS = 3600.0
RETRY_SECONDS = 60.0
NOT_SET = (
    "**Nothing is published from here.** Its operator can publish what raters agreed to with "
    "`python -m feedback publish`, and name that data set in `PRIVACY_DIAL_PUBLIC`."
)


@dataclass(frozen=True)
class CrowdPage:
    """What the page shows.

    Attributes:
        said: Markdown, what this is and how much there is.
        charts: HTML, "" where there is nothing to draw.
        table: Markdown, the same in numbers.
    """

    said: str
    charts: str = ""
    table: str = ""


class Crowd:
    """Reads the public data set when somebody looks, and remembers it for an hour.

    Args:
        read: Reads it; raises `FeedbackError`. None where no data set is named.
        model_version: Method and revision whose releases come first, as rows name it.
        clock: Gives seconds.
    """

    def __init__(
        self,
        read: Callable[[], Publication] | None,
        *,
        model_version: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._model_version = model_version
        self._clock = clock
        self._lock = threading.Lock()
        self._next = float("-inf")
        self._found: Publication | None = None
        self._fault = ""
        self._pages: dict[Source | None, CrowdPage] = {}

    def page(self, source: str = EVERYTHING) -> CrowdPage:
        """Return what to show about one kind of photo; a fault of the Hub is a sentence in it."""
        if self._read is None:
            return CrowdPage(NOT_SET)
        kind = _source(source)
        with self._lock:
            self._look()
            if self._found is None:
                return CrowdPage(f"**The data set cannot be read.** {self._fault}")
            # Counting a large data set takes seconds; nothing changes until it is read again.
            if kind not in self._pages:
                self._pages[kind] = self._made(self._found, kind)
            page, fault = self._pages[kind], self._fault
        late = f" It could not be read again: {fault}" if fault else ""
        return replace(page, said=page.said + late)

    def _look(self) -> None:
        """Read the data set where it was not lately."""
        if self._read is None or self._clock() < self._next:
            return
        try:
            self._found, self._fault = self._read(), ""
        except FeedbackError as error:
            self._fault = str(error)
            self._next = self._clock() + RETRY_SECONDS
        else:
            self._pages.clear()
            self._next = self._clock() + FRESH_SECONDS

    def _made(self, found: Publication, kind: Source | None) -> CrowdPage:
        view = crowd_view(found.ratings, source=kind)
        release = _release_of(found, self._model_version)
        return CrowdPage(_said(found, view), _charts(view, release), _table(view))


def open_crowd(repo_id: str | None, *, model_version: str, endpoint: str | None = None) -> Crowd:
    """Return what reads a public data set; nothing is asked yet.

    Args:
        repo_id: NAME/REPO, None where nothing is published.
        model_version: Method and revision of this app's model, as rows name it.
        endpoint: Of another Hub.

    Raises:
        InvalidRatingError: `repo_id` has another form.
    """
    if repo_id is None:
        return Crowd(None)
    # Without a token: what anyone may read, and nothing else.
    remote = public_dataset(repo_id, token=None, endpoint=endpoint)
    return Crowd(functools.partial(read_publication, remote), model_version=model_version)


def _source(name: str) -> Source | None:
    """Return a kind of photo; None for all and for whatever is none."""
    sources: dict[str, Source] = {
        "own_photo": "own_photo",
        "demo_photo": "demo_photo",
        "synthetic_face": "synthetic_face",
    }
    return sources.get(name)


def _release_of(found: Publication, model_version: str) -> PublicRelease | None:
    """Return the newest release about the model, else the newest."""
    about = [release for release in found.releases if release.model_version == model_version]
    return next(reversed(about or found.releases), None)


def _said(found: Publication, view: CrowdView) -> str:
    raters = "rater" if view.n_raters == 1 else "raters"
    return (
        f"**{view.n_rows:,} answers of {view.n_raters:,} {raters}** who agreed to publication. "
        f"[{found.repo_id}](https://huggingface.co/datasets/{found.repo_id}) at revision "
        f"{found.revision[:12]}, published on {found.published_on}. Which attributes raters kept "
        "or hid is not published: it could tell them apart."
    )


def _charts(view: CrowdView, release: PublicRelease | None) -> str:
    figures = []
    if release is not None:
        words = (
            f"{population_sentence(release)} Release {release.name}, ε = {release.epsilon:g}, "
            f"drawn on {release.drawn_on}; about photos of every kind."
        )
        svg, table = population_chart(release), population_csv(release)
        figures.append(_figure("Which strength people prefer", svg, words, "population", table))
    if view.tenths:
        svg, words, table = answers_chart(view), answers_sentence(view), answers_csv(view)
        figures.append(_figure("What they say at each strength", svg, words, "answers", table))
    return f'<div class="audit">{"".join(figures)}</div>' if figures else ""


def _figure(title: str, svg: str, words: str, name: str, table: bytes) -> str:
    """Return a chart, its sentence, and links that save the chart and its numbers."""
    files = (("svg", "image/svg+xml", saved(svg)), ("csv", "text/csv", table))
    links = "".join(
        f'<a download="{name}.{kind}" href="data:{mime};base64,{base64.b64encode(data).decode()}">'
        f"Save as {kind.upper()}</a>"
        for kind, mime, data in files
    )
    return (
        f"<figure><figcaption>{title}</figcaption>{svg}<p>{escape(words)}</p>"
        f'<p class="save">{links}</p></figure>'
    )


def _table(view: CrowdView) -> str:
    if not view.tenths:
        return answers_sentence(view)
    rows = [
        f"| {t.low:.1f}-{t.low + 0.1:.1f} | {t.n_answers} | {t.n_raters} | "
        f"{t.too_recognisable:.0%} | {t.just_right:.0%} ({t.interval[0]:.0%} to "
        f"{t.interval[1]:.0%}) | {t.too_changed:.0%} |"
        for t in view.tenths
    ]
    head = (
        "| strength | answers | raters | too recognisable | just right (90 %) | changed too much |"
    )
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])
