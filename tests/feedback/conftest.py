"""Builders of real keys, pages and rows; every test gets its own page ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from feedback import Answer, Consent, Keys, Page, Rater, Rating, Shown, new_id, rows_of_page
from tests.hub_server import HubServer

NOW = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """One server's keys, one moment, and short ways to make pages and rows."""

    now: datetime
    keys: Keys
    consent: Consent

    def page(self, **changes: Any) -> Page:
        fields = {
            "session_id": new_id(),
            "photo_id": new_id(),
            "method": "embedded",
            "model_revision": "0f3c2a",
            "shown": (
                Shown(0.8, epsilon=12.3457),
                Shown(0.2),
                Shown(1.0, epsilon=0.0),
                Shown(0.55, epsilon=99.0),
            ),
            "source": "synthetic_face",
            "app_version": "0.1.0",
            "expires_at": self.now + timedelta(hours=2),
        }
        return Page(**(fields | changes))

    def answer(self, **changes: Any) -> Answer:
        fields = {
            "best": 0,
            "just_right": 2,
            "best_ms": 4321,
            "just_right_ms": 987,
            "client": "web",
            "answered_at": self.now,
        }
        return Answer(**(fields | changes))

    def rater(self) -> Rater:
        return Rater(new_id(), 1)

    def rows(self, page: Page, rater: Rater | None = None, **answer: Any) -> tuple[Rating, ...]:
        return rows_of_page(
            page,
            self.answer(**answer),
            rater=rater or self.rater(),
            consent=self.consent,
            key=self.keys.derive("rating"),
        )

    def rating(self, **changes: Any) -> Rating:
        return replace(self.rows(self.page())[0], **changes)


@pytest.fixture(scope="session")
def world() -> World:
    return World(
        NOW,
        Keys({1: bytes(range(32))}, is_generated=False, notice=""),
        Consent("2026-11", "aggregate"),
    )


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A Hub of this machine with two people: anna (token hf_anna) and ben (hf_ben)."""
    with HubServer() as server:
        server.add_user("anna", "hf_anna")
        server.add_user("ben", "hf_ben")
        yield server
