"""Ratings in, preference out: rows, a durable store, every rater's dial; never imports torch."""

from feedback.errors import (
    BusyStoreError,
    CorruptStoreError,
    ErasedRaterError,
    ExpiredTokenError,
    ExportError,
    FeedbackError,
    ForeignShardError,
    ForeignTokenError,
    ForgedTokenError,
    InvalidKeyError,
    InvalidRatingError,
    ReleaseError,
    RemoteBusyError,
    RemoteError,
    RemoteRefusedError,
    StaleSnapshotError,
    StoreError,
    TokenError,
    UncertainCommitError,
    UsedPageError,
)
from feedback.fit.basis import choose_model, release_for
from feedback.fit.links import read_links, write_links
from feedback.fit.preferences import (
    FitSettings,
    Population,
    Preferences,
    SubjectPreference,
    fit_preferences,
    write_preferences,
)
from feedback.identity import (
    AnonymousRater,
    issue_page,
    mint_rater,
    open_page,
    open_rater,
    rater_of,
    raters_of,
    recover_rater,
    session_id,
)
from feedback.keys import Keys, load_keys
from feedback.page import Answer, Consent, Page, Rater, Shown, new_id, rows_of_page
from feedback.population.account import ACCOUNT_NAME, ReleaseAccount
from feedback.population.pooling import Pooled, contributions, pool, prior_of
from feedback.population.release import Release
from feedback.preference.belief import Belief, Prior
from feedback.preference.decision import (
    PreferenceTarget,
    Provenance,
    answers_left,
    decide,
    is_settled,
)
from feedback.preference.judgement import Judgement, history_of, judgements_of
from feedback.preference.posterior import Posterior, RaterModel
from feedback.preference.selection import PageChoice, choose_page
from feedback.remote.base import NullRemote, Remote
from feedback.remote.opening import open_remote
from feedback.schema import Rating, parse_ratings
from feedback.simulate.run import SimulationResult, SimulationSettings, run_simulation
from feedback.store.log import DATABASE_NAME, RatingStore, StoreStats
from feedback.sync.erasure import Receipt
from feedback.sync.health import Health
from feedback.sync.loop import Sync

__all__ = [
    "ACCOUNT_NAME",
    "DATABASE_NAME",
    "AnonymousRater",
    "Answer",
    "Belief",
    "BusyStoreError",
    "Consent",
    "CorruptStoreError",
    "ErasedRaterError",
    "ExpiredTokenError",
    "ExportError",
    "FeedbackError",
    "FitSettings",
    "ForeignShardError",
    "ForeignTokenError",
    "ForgedTokenError",
    "Health",
    "InvalidKeyError",
    "InvalidRatingError",
    "Judgement",
    "Keys",
    "NullRemote",
    "Page",
    "PageChoice",
    "Pooled",
    "Population",
    "Posterior",
    "PreferenceTarget",
    "Preferences",
    "Prior",
    "Provenance",
    "Rater",
    "RaterModel",
    "Rating",
    "RatingStore",
    "Receipt",
    "Release",
    "ReleaseAccount",
    "ReleaseError",
    "Remote",
    "RemoteBusyError",
    "RemoteError",
    "RemoteRefusedError",
    "Shown",
    "SimulationResult",
    "SimulationSettings",
    "StaleSnapshotError",
    "StoreError",
    "StoreStats",
    "SubjectPreference",
    "Sync",
    "TokenError",
    "UncertainCommitError",
    "UsedPageError",
    "answers_left",
    "choose_model",
    "choose_page",
    "contributions",
    "decide",
    "fit_preferences",
    "history_of",
    "is_settled",
    "issue_page",
    "judgements_of",
    "load_keys",
    "mint_rater",
    "new_id",
    "open_page",
    "open_rater",
    "open_remote",
    "parse_ratings",
    "pool",
    "prior_of",
    "rater_of",
    "raters_of",
    "read_links",
    "recover_rater",
    "release_for",
    "rows_of_page",
    "run_simulation",
    "session_id",
    "write_links",
    "write_preferences",
]
