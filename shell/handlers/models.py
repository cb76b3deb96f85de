"""Runs the loop for the *Models* page, shows what it found, and publishes its model.

Knows no web page: gets plain values of a call and returns what is shown.
"""

from __future__ import annotations

from typing import Any

from privacy_core.errors import InvalidArgumentError
from shell.callers import Profile, Request, Token, speaker_of
from shell.evidence import ARCHIVE, Evidence, Publisher
from shell.languages import Speaker
from shell.loop import LoopSettings
from shell.model_words import (
    charts_html,
    method_choices,
    numbers_table,
    publish_line,
    said_line,
    steps_html,
    verdict_line,
)
from shell.models import LoopQueue, LoopRun, RunView
from shell.pictures import PictureFolder
from shell.sign_in import SignIn
from shell.updates import SKIP, update

_NO_RESULT = tuple(SKIP for _ in range(6))


class ModelHandlers:
    """What the controls of the *Models* page do; a visitor's run is in the state they are given.

    Args:
        loops: Runs the loop.
        pictures: What the page serves files from.
        publisher: Sends a model to the Hub; None where the app has no right to.
        missing: Then, what it was started without, in a sentence.
    """

    def __init__(
        self,
        loops: LoopQueue,
        *,
        pictures: PictureFolder,
        publisher: Publisher | None,
        missing: str,
    ) -> None:
        self._loops = loops
        self._pictures = pictures
        self._publisher = publisher
        self._missing = missing

    def set_target(self, request: Request, target: str) -> Any:
        """Offer the methods that apply to a kind of model."""
        say = speaker_of(request)
        choices = method_choices(LoopSettings(target).target, say=say)
        return update(choices=choices, value=choices[0][1])

    def start_loop(
        self,
        request: Request,
        target: str,
        label: str,
        share: float,
        method: str,
        n_models: int,
        n_people: int,
        run: LoopRun | None,
    ) -> tuple[Any, ...]:
        """Put a run into the queue, one per visitor at a time."""
        say = speaker_of(request)
        if run is not None and not self._loops.look(run).is_over:
            raise InvalidArgumentError(
                "One run at a time must be enough, got another. Cancel yours or wait for its end."
            )
        run = self._loops.enter(LoopSettings(target, label, share, method, n_models, n_people))
        return *_progress(self._loops.look(run), say=say), update(visible=False), run

    def watch_loop(self, request: Request, run: LoopRun | None) -> tuple[Any, ...]:
        """Show how far the run is, and what it found once it is done."""
        say = speaker_of(request)
        if run is None:
            return *(SKIP for _ in range(4)), update(active=False), *_NO_RESULT, None
        view, evidence = self._loops.look(run), run.evidence
        if evidence is None:
            return *_progress(view, say=say), *_NO_RESULT, run
        can_publish = self._publisher is not None and evidence.has_passed
        return (
            *_progress(view, say=say),
            update(visible=True),
            verdict_line(evidence, say=say),
            charts_html(evidence, say=say),
            numbers_table(evidence, say=say),
            update(interactive=can_publish),
            publish_line(evidence, self._missing, say=say),
            run,  # Set again, so that it is not too old while somebody looks.
        )

    def cancel_loop(self, run: LoopRun | None) -> Any:
        """End the run."""
        if run is not None:
            self._loops.cancel(run)
        return update(interactive=False)

    def download_model(self, run: LoopRun | None) -> str:
        """Make one file of the model and its evidence."""
        return self._pictures.file(_found(run).archive(), ARCHIVE)

    def publish_model(self, request: Request, run: LoopRun | None) -> str:
        """Publish the model, where the app may and the gate allows it."""
        evidence = _found(run)
        if self._publisher is None:
            raise InvalidArgumentError(publish_line(None, self._missing))
        return speaker_of(request).retell(evidence.publish(self._publisher))


class OwnModelHandlers:
    """Publishes a model to the account of a visitor who signed in, by their own right.

    Gradio reads profile and token from the visitor's cookie; they stay in the call.
    """

    def __init__(self, sign_in: SignIn) -> None:
        self._sign_in = sign_in

    def publish_own(
        self,
        request: Request,
        run: LoopRun | None,
        name: str,
        profile: Profile | None,
        token: Token | None,
    ) -> str:
        """Publish the model of this tab's run, where the gate allows it."""
        publisher = self._sign_in.publisher(
            name or "",
            owner=profile.username if profile else None,
            token=token.token if token else None,
        )
        return speaker_of(request).retell(_found(run).publish(publisher))


def _found(run: LoopRun | None) -> Evidence:
    if run is None or run.evidence is None:
        raise InvalidArgumentError("The loop must have been run in this tab. Run it first.")
    return run.evidence


def _progress(view: RunView, *, say: Speaker) -> tuple[Any, ...]:
    """Show what runs, its steps, the button that fits, and whether to look again."""
    return (
        said_line(view, say=say),
        update(value=steps_html(view, say=say), visible=True),
        update(visible=view.is_over),
        update(visible=not view.is_over, interactive=not view.is_over),
        update(active=not view.is_over),
    )
