"""Any valid rating, for property tests."""

from __future__ import annotations

from datetime import UTC

from hypothesis import strategies as st

from feedback import Rating
from feedback.columns import CLIENTS, CONSENT_SCOPES, SOURCES, whole_ms

IDS = st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}")
WORDS = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._/+-]{0,20}\Z")
VERSIONS = st.sampled_from(
    [
        {"schema_version": 1},
        {"schema_version": 2},
        {"schema_version": 2, "attributes": "none"},
        {"schema_version": 2, "attributes": "keep=smiling;hide=gender;set=beard:no"},
    ]
)
QUANTITIES = st.none() | st.floats(0, 3.4e38) | st.floats(0, 1000)


@st.composite
def ratings(draw):
    kind = draw(st.sampled_from(["jar5", "best_of_n", "likert5", "slider"]))
    n_shown = draw(st.integers(1, 16))
    highest = {"jar5": 4, "best_of_n": 1, "likert5": 4, "slider": 0}[kind]
    ids = {n: draw(IDS) for n in ("rating_id", "rater_id", "session_id", "page_id", "photo_id")}
    words = {
        n: draw(WORDS)
        for n in ("method", "model_revision", "policy", "consent_version", "app_version")
    }
    return Rating(
        **ids,
        **words,
        rater_epoch=draw(st.integers(1, 32767)),
        position=draw(st.integers(0, n_shown - 1)),
        n_shown=n_shown,
        strength=draw(st.floats(0, 1)),
        epsilon=draw(QUANTITIES),
        quality=draw(QUANTITIES),
        response_type=kind,
        response=None if kind == "slider" else draw(st.integers(0, highest)),
        response_value=draw(st.floats(0, 1)) if kind == "slider" else None,
        is_catch=draw(st.booleans()),
        is_repeat=draw(st.booleans()),
        propensity=draw(st.floats(1e-6, 1)),
        response_ms=draw(st.integers(0, 864_000)) * 100,
        client=draw(st.sampled_from(CLIENTS)),
        source=draw(st.sampled_from(SOURCES)),
        consent_scope=draw(st.sampled_from(CONSENT_SCOPES)),
        created_at=whole_ms(draw(st.datetimes(timezones=st.just(UTC)))),
        **draw(VERSIONS),
    )
