"""The *Crowd* page: what a public data set holds, read at most once an hour, and its sentences.

Knows the published part only; nothing of this server's own store comes here.
"""

from __future__ import annotations

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
)
from shell.languages import ENGLISH, Speaker, message
from shell.saving import chart_files, save_links

CROWD_INTRO = message("""
What raters prefer, from the **published** data set only: answers of people who agreed to
publication row by row, in cells of at least ten raters, and releases with differential privacy.
""")
EVERYTHING = "all"
SOURCE_CHOICES = (
    (message("All photos"), EVERYTHING),
    (message("Raters' own photos"), "own_photo"),
    (message("Examples"), "demo_photo"),
    (message("People who do not exist"), "synthetic_face"),
)
FRESH_SECONDS = 3600.0
RETRY_SECONDS = 60.0
NOT_SET = message(
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
        self._pages: dict[tuple[Source | None, str], CrowdPage] = {}

    def page(self, source: str = EVERYTHING, *, say: Speaker = ENGLISH) -> CrowdPage:
        """Return what to show about one kind of photo; a fault of the Hub is a sentence in it."""
        if self._read is None:
            return CrowdPage(say(NOT_SET))
        kind = _source(source)
        with self._lock:
            self._look()
            if self._found is None:
                unread = say("**The data set cannot be read.** {fault}", fault=self._told(say))
                return CrowdPage(unread)
            # Counting a large data set takes seconds; nothing changes until it is read again.
            place = (kind, say.language)
            if place not in self._pages:
                self._pages[place] = self._made(self._found, kind, say)
            page, fault = self._pages[place], self._told(say)
        if not fault:
            return page
        late = say("It could not be read again: {fault}", fault=fault)
        return replace(page, said=f"{page.said} {late}")

    def _told(self, say: Speaker) -> str:
        """Return what went wrong, "" if nothing did."""
        return self._fault and say.retell(self._fault)

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

    def _made(self, found: Publication, kind: Source | None, say: Speaker) -> CrowdPage:
        view = crowd_view(found.ratings, source=kind)
        release = _release_of(found, self._model_version)
        return CrowdPage(_said(found, view, say), _charts(view, release, say), _table(view, say))


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


def _said(found: Publication, view: CrowdView, say: Speaker) -> str:
    head = say.count(
        view.n_raters,
        "**{n_rows:,} answers of {n:,} rater** who agreed to publication.",
        "**{n_rows:,} answers of {n:,} raters** who agreed to publication.",
        n_rows=view.n_rows,
    )
    source = say(
        "{link} at revision {revision}, published on {day}. Which attributes raters kept or hid is "
        "not published: it could tell them apart.",
        link=f"[{found.repo_id}](https://huggingface.co/datasets/{found.repo_id})",
        revision=found.revision[:12],
        day=found.published_on,
    )
    return f"{head} {source}"


def _charts(view: CrowdView, release: PublicRelease | None, say: Speaker) -> str:
    figures = []
    if release is not None:
        drawn = say(
            "Release {name}, ε = {epsilon:g}, drawn on {day}; about photos of every kind.",
            name=release.name,
            epsilon=release.epsilon,
            day=release.drawn_on,
        )
        words = f"{population_sentence(release, say=say)} {drawn}"
        svg, table = population_chart(release, say=say), population_csv(release)
        title = say("Which strength people prefer")
        figures.append(_figure(title, svg, words, "population", table, say=say))
    if view.tenths:
        svg, words = answers_chart(view, say=say), answers_sentence(view, say=say)
        title = say("What they say at each strength")
        figures.append(_figure(title, svg, words, "answers", answers_csv(view), say=say))
    return f'<div class="audit">{"".join(figures)}</div>' if figures else ""


def _figure(title: str, svg: str, words: str, name: str, table: bytes, *, say: Speaker) -> str:
    """Return a chart, its sentence, and links that save the chart and its numbers."""
    links = save_links(
        name, chart_files(svg, table), label=lambda kind: say("Save as {kind}", kind=kind)
    )
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>{svg}<p>{escape(words)}</p>"
        f"{links}</figure>"
    )


def _table(view: CrowdView, say: Speaker) -> str:
    if not view.tenths:
        return answers_sentence(view, say=say)
    rows = [
        say(
            "| {start:.1f}-{end:.1f} | {n_answers} | {n_raters} | {revealing:.0%} | "
            "{right:.0%} ({low:.0%} to {high:.0%}) | {changed:.0%} |",
            start=t.low,
            end=t.low + 0.1,
            n_answers=t.n_answers,
            n_raters=t.n_raters,
            revealing=t.too_recognisable,
            right=t.just_right,
            low=t.interval[0],
            high=t.interval[1],
            changed=t.too_changed,
        )
        for t in view.tenths
    ]
    head = say(
        "| strength | answers | raters | too recognisable | just right (90 %) | changed too much |"
    )
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])
