"""The page: a photo, a live dial, four blinded variants, a download. A thin Gradio shell.

Builds the page from collaborators it is given, most of them from `shell/`. The environment is read
once, in `main`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
import numpy as np
import torch
from gradio.events import api
from gradio.i18n import I18nData

from feedback import (
    ACCOUNT_NAME,
    DATABASE_NAME,
    FeedbackError,
    RatingStore,
    ReleaseAccount,
    load_keys,
)
from feedback.sync.loop import Sync
from privacy_core.anonymize import Anonymizer
from privacy_core.attributes import load_predictor
from privacy_core.backends.base import FaceRequest
from privacy_core.backends.embedded import MODEL_FOLDER, EmbeddedBackend
from privacy_core.errors import InvalidArgumentError, PhotoError, PrivacyDialError
from privacy_core.faces import default_detector
from privacy_core.faces.align import SIZE
from privacy_core.noise import NoiseKey
from privacy_core.recognition import DlibRecogniser
from privacy_core.schema import DEFAULT_STRENGTH, AttributePolicy, StrengthCurve
from shell.about import about_text
from shell.api import PublicCalls
from shell.callers import Progress, speaker_of
from shell.copying import Load, health_report, open_copy, running
from shell.crowd import CROWD_INTRO, EVERYTHING, SOURCE_CHOICES, Crowd, open_crowd
from shell.desk import RatingDesk
from shell.dial import privacy_floor, starting_prior
from shell.evidence import Publisher, open_publisher
from shell.face_words import (
    ALL_FACES,
    FOLLOW,
    HIDE_CHOICES,
    KEEP_CHOICES,
    OBSERVE,
    PERMISSION,
    WHICH_FACE,
    WHICH_FACE_INFO,
)
from shell.gpu import GrantedBackend, find_grant
from shell.handlers.api import ApiHandlers
from shell.handlers.crowd import CrowdHandlers
from shell.handlers.faces import FaceHandlers
from shell.handlers.greeting import GreetingHandlers, PreviewHandlers, captioned
from shell.handlers.judging import JudgingHandlers
from shell.handlers.likeness import LikenessHandlers
from shell.handlers.models import ModelHandlers, OwnModelHandlers
from shell.handlers.protect import PhotoHandlers
from shell.headers import OwnPagesOnly, SecurityHeaders
from shell.languages import ENGLISH, Speaker, message, speaker
from shell.likeness import MEASURE, MEASURE_INFO, LikenessMeter, find_meter
from shell.limits import Limiter, RateLimit, count_proxies
from shell.loop import LoopSettings, plan_loop
from shell.mcp_door import McpDoor, own_file
from shell.model_words import (
    DURATION,
    LABEL_CHOICES,
    LEGEND,
    MODELS_INTRO,
    N_MODELS_CHOICES,
    N_MODELS_INFO,
    N_PEOPLE_CHOICES,
    SHARE_CHOICES,
    TARGET_CHOICES,
    method_choices,
)
from shell.models import PASSED_ON, LoopQueue
from shell.observer import Observer
from shell.pictures import PictureFolder, Uploads
from shell.previews import Preview, example_photos, preview_html, read_previews
from shell.refusals import sentence_of
from shell.routes import (
    NOT_UNDERSTOOD,
    PUBLIC_CALLS,
    ClosedDoors,
    HealthRoute,
    NoStore,
    QuietErrors,
    SmallBodies,
)
from shell.sign_in import (
    OWN_NAME,
    SIGN_IN,
    SIGN_IN_NOTE,
    SIGN_OUT,
    SIGNED_IN_INSTEAD,
    SignIn,
    find_sign_in,
)
from shell.stream import ONE_STREAM
from shell.style import (
    ANNOUNCE,
    ARROWS,
    CLEAR_RECORD,
    CONTRAST,
    CSS,
    FOCUS_FACE,
    FOCUS_OBSERVED,
    FORGET,
    HISTORY_KEY,
    LANGUAGE,
    SAVE_FILE,
    SCROLL_TO_DIAL,
    SCROLL_TO_HEADING,
    SCROLL_TO_LOOP,
)
from shell.sweeping import Sweeper, sweeping
from shell.updates import Update
from shell.waiting import PLACE, SAY_PLACE, WAITING_ID, PoliteQueue, waiting_html
from shell.wording import (
    COMPARED,
    CONSENT_CHOICES,
    CONSENT_QUESTION,
    CONSENT_TEXT,
    EXAMPLES_LINE,
    INTRO,
    JUST_RIGHT,
    LETTERS,
    NONE,
    OWN_NOISE,
    QUESTION,
    TILES,
    WHY_NOT,
    number_text,
)

ROOT = Path(__file__).resolve().parent
CACHE_SECONDS = (60, 900)
"""How often old pictures are looked for, and the age from which they are deleted."""
MAX_FILE_SIZE = "25mb"
QUEUE_LIMIT = 64
"""Of more photos and clicks than wait at a time, the next is refused."""

_QUICK: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None}
"""Events that take no longer than a moment wait for no one."""
_SLOW: dict[str, Any] = {
    "api_visibility": "private",
    "concurrency_limit": 1,
    "concurrency_id": "photo",
}
"""Looking for faces takes a second and memory: one photo at a time."""
_LIVE: dict[str, Any] = {
    "api_visibility": "private",
    "queue": False,
    "show_progress": "hidden",
    "trigger_mode": "always_last",
}
"""Events that follow a finger."""
_PROGRESS = gr.Progress()
"""Gradio finds it among a handler's defaults and passes the one of the call."""

P = ParamSpec("P")
T = TypeVar("T")


def local(text: str) -> Any:
    """Let the browser say a message in its own language."""
    return I18nData(text)


_TYPES: dict[str, Any] = {
    "FileData": gr.FileData,
    "Picked": gr.SelectData,
    "Profile": gr.OAuthProfile,
    "Request": gr.Request,
    "Token": gr.OAuthToken,
}
"""What Gradio calls the types by which handlers name what it shall give them."""


def for_visitor(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler as Gradio calls it, for visitors.

    Expected failures are shown as their sentence and anything else as one that tells nothing, in
    the language of the request. Gradio gives it to whatever has a parameter of that type, so one
    is added, first, where the handler itself has no use for it.
    """
    signature = _signature(handler)
    takes_request = "request" in signature.parameters

    @functools.wraps(handler)
    def handle(request: gr.Request, *args: Any) -> Any:
        given = (request, *args) if takes_request else args
        try:
            return _rendered(handler(*given))
        except Exception as error:  # noqa: BLE001 - what it says may hold what was uploaded
            fault = _fault(error, speaker_of(request), handler.__qualname__)
        raise fault

    if not takes_request:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        added = inspect.Parameter("request", kind, annotation=gr.Request)
        signature = signature.replace(parameters=[added, *signature.parameters.values()])
    return _typed(handle, signature)


def for_program(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Do the same for calls by name, in English."""

    @functools.wraps(handler)
    def handle(*args: Any) -> Any:
        try:
            return _rendered(handler(*args))
        except Exception as error:  # noqa: BLE001 - what it says may hold what was uploaded
            fault = _fault(error, ENGLISH, handler.__qualname__)
        raise fault

    return _typed(handle, _signature(handler))


def _signature(handler: Callable[..., Any]) -> inspect.Signature:
    """Return a handler's signature with Gradio's types where it has ours of the same use."""
    signature = inspect.signature(handler, eval_str=True, locals=_TYPES)
    parameters = [
        parameter.replace(default=_PROGRESS) if parameter.annotation is Progress else parameter
        for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters)


def _typed(handle: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """Let Gradio find a signature, in both of the places where it looks."""
    hints = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    hints["return"] = signature.return_annotation
    given = {name: hint for name, hint in hints.items() if hint is not signature.empty}
    for name, value in (("__signature__", signature), ("__annotations__", given)):
        setattr(handle, name, value)
    return handle


def _rendered(returned: Any) -> Any:
    """Return what a handler returned with its updates as Gradio's."""
    if isinstance(returned, Update):
        return gr.update(**returned.settings)
    if isinstance(returned, tuple):
        return tuple(_rendered(value) for value in returned)
    return returned


def _fault(error: Exception, say: Speaker, name: str) -> gr.Error:
    """Return what is shown of what went wrong in a handler of some name."""
    sentence, title = sentence_of(error, say=say, name=name), say("That did not work")
    return gr.Error(sentence, duration=None, title=title, print_exception=False)


def _choices(offered: Iterable[tuple[str, Any]]) -> list[tuple[Any, Any]]:
    """Let the browser say what is offered; the values are the same in every language."""
    return [(local(name), value) for name, value in offered]


def _answers(offered: Iterable[str]) -> list[tuple[Any, Any]]:
    """Do the same for answers whose value is their English name."""
    return _choices((name, name) for name in offered)


async def _refuse_links(path: str | Path | None) -> str | None:
    """Stand in for Gradio's own step, which would download whatever address a request names."""
    if path is None:
        return None
    named = own_file(str(path))
    if "://" in named:
        raise PhotoError("`photo` must be uploaded here, got a link. Save the picture first.")
    return named


def _path_of(payload: Any) -> str | None:
    """Give the upload's path as it is: `read_photo` decides what a picture is."""
    return None if payload is None else payload.path


def build_page(  # noqa: PLR0913 - collaborators, most with a default
    *,
    anonymizer: Anonymizer,
    desk: RatingDesk,
    loops: LoopQueue,
    cache: Path,
    report: Callable[[], Mapping[str, Any]],
    examples: Sequence[Path] = (),
    previews: Sequence[Preview] = (),
    curve: StrengthCurve | None = None,
    clip_radius: float | None = None,
    publishing: tuple[Publisher | None, str] = (None, ""),
    sign_in: SignIn | None = None,
    crowd: Crowd | None = None,
    observer: Observer | None = None,
    meter: LikenessMeter | None = None,
) -> gr.Blocks:
    """Build the page.

    Args:
        anonymizer: Makes variants.
        desk: Asks for answers and keeps them.
        loops: Runs the loop of the *Models* page.
        cache: Folder for pictures on their way to the browser, the value of `GRADIO_TEMP_DIR`.
        report: What `GET /health` tells, for programs that ask by name.
        examples: Pictures to try.
        previews: Ladders of the examples, made beforehand, in their order.
        curve: How strength was measured, None where it was not.
        clip_radius: The model's C, for the table of ε; None leaves that out.
        publishing: From `open_publisher`.
        sign_in: Where visitors publish to accounts of their own; None where they cannot sign in.
        crowd: Reads the published data set; None where there is none.
        observer: Says what can be inferred of a face; None leaves that out.
        meter: Measures how far a picture is from the original; None leaves that out.
    """
    page: gr.Blocks
    with gr.Blocks(
        title="Privacy Dial", analytics_enabled=False, delete_cache=CACHE_SECONDS
    ) as page:
        page.temp_file_sets[0] = page.upload_file_set = Uploads()
        pictures = PictureFolder(cache, source_type=anonymizer.backend.digital_source_type)
        handlers = PhotoHandlers(
            anonymizer,
            desk,
            uploads=page.upload_file_set,
            examples=examples,
            pictures=pictures,
            curve=curve,
        )
        judging = JudgingHandlers(desk, pictures=pictures, show=handlers.show, warn=gr.Warning)
        memory = _Memory()
        gr.Markdown(local(INTRO))
        timer = gr.Timer(1.0, active=False)
        with gr.Tab(local("Protect")):
            start = _Start(examples, previews)
            dial = _Dial(can_observe=observer is not None, can_measure=meter is not None)
            blind = _BlindPage()
            storage = _add_erasure(judging, memory, blind)
        publisher, missing = publishing
        if publisher is None and sign_in is not None:
            missing = SIGNED_IN_INSTEAD
        with gr.Tab(local("Crowd")) as tab:
            _wire_crowd(CrowdHandlers(crowd or Crowd(None)), _Crowd(), tab)
        with gr.Tab(local("Models")) as models:
            _wire_models(
                ModelHandlers(loops, pictures=pictures, publisher=publisher, missing=missing),
                _Models(timer, can_sign_in=sign_in is not None),
                sign_in,
            )
        with gr.Tab(local("About")):
            about = functools.partial(about_text, curve, clip_radius=clip_radius)
            told = gr.Markdown(about(), elem_id="about")
        # Its regions are there only once it is shown.
        models.select(None, None, None, js=ANNOUNCE)
        _wire_photo(handlers, memory, start, dial, blind)
        _wire_dial(handlers, memory, dial)
        _wire_faces(FaceHandlers(handlers.show, observer=observer), memory, dial)
        _wire_likeness(LikenessHandlers(meter), memory, dial)
        _wire_page(judging, memory, dial, blind)
        _wire_result(judging, memory, dial, blind, storage)
        calls = PublicCalls(anonymizer, uploads=page.upload_file_set, curve=curve)
        _wire_api(page, ApiHandlers(calls, desk, pictures=pictures, report=report))
        for script in (ONE_STREAM, LANGUAGE, ANNOUNCE, ARROWS, SAY_PLACE):
            page.load(None, None, None, js=script)
        # Not the field for the photo: Gradio would make it anew, without its own `preprocess`.
        pictured = [dial.original, dial.variant, blind.original, *blind.tiles]
        alt_texts = [str(picture.alt_text) for picture in pictured]
        greeting = GreetingHandlers(examples, previews, about=about, alt_texts=alt_texts)
        greeted = [told, dial.number, start.gallery, start.preview, *pictured]
        page.load(for_visitor(greeting.greet), None, greeted, show_progress="hidden", **_QUICK)
        loading = page.load(
            for_visitor(judging.load), [memory.history], [storage, memory.history], **_QUICK
        )
        loading.success(None, memory.history, None, js=CLEAR_RECORD)
    _close_others(page)
    _read_quietly(page)
    return page


def _close_others(page: gr.Blocks) -> None:
    """List for programs what is meant for them only: Gradio's own parts add calls of theirs."""
    for fn in page.fns.values():
        if fn.name not in PUBLIC_CALLS:
            fn.api_visibility = "private"


def _read_quietly(page: gr.Blocks) -> None:
    """Say of a call whose values do not fit only that: Gradio would print them to the log."""
    for name in ("preprocess_data", "call_function"):
        object.__setattr__(page, name, _quiet(getattr(page, name)))


def _quiet(step: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    async def take(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await step(*args, **kwargs)
        except PhotoError as error:
            message = str(error)
        except Exception as error:
            if isinstance(error, gr.Error) and not error.print_exception:
                raise
            sys.stderr.write(f"A call was refused: {type(error).__name__}\n")
            message = NOT_UNDERSTOOD
        raise gr.Error(message, duration=None, print_exception=False)

    return take


class _Memory:
    """What stays between two clicks: the visit, here, and the sealed history, in the browser.

    Who answers outlives the photo: they may want their answers deleted long after. Gradio forgets
    that too an hour after the tab is closed, and when 64 others have come.
    """

    def __init__(self) -> None:
        self.visit = gr.State(None, time_to_live=CACHE_SECONDS[1])
        self.rater = gr.State(None)
        self.history = gr.BrowserState("", storage_key=HISTORY_KEY, secret=HISTORY_KEY)


class _Start:
    """Where a photo comes from."""

    def __init__(self, examples: Sequence[Path], previews: Sequence[Preview]) -> None:
        with gr.Column() as self.group:
            self.photo = gr.Image(
                label=local("Your photo"),
                type="filepath",
                height=320,
                elem_id="photo",
                alt_text=message("The photo you chose"),
            )
            # As it would decode the file itself, and name its faults in no one's words.
            self.photo.preprocess = _path_of  # type: ignore[method-assign]
            object.__setattr__(self.photo, "async_move_resource_to_block_cache", _refuse_links)
            gr.HTML(waiting_html(local(PLACE)), elem_id=WAITING_ID)
            gr.Markdown(local(EXAMPLES_LINE), visible=bool(examples))
            self.gallery = gr.Gallery(
                captioned(examples),
                label=local("Example photos"),
                show_label=False,
                columns=6,
                height=None,
                elem_id="examples",
                allow_preview=False,
                interactive=False,
                buttons=[],
                visible=bool(examples),
            )
            first = preview_html(previews[0]) if previews else ""
            self.preview = gr.HTML(first, visible=bool(previews), elem_id="preview")
            show = for_visitor(PreviewHandlers(previews).show_preview)
            self.gallery.select(show, None, self.preview, **_LIVE)


class _Dial:
    """The photo beside its variant, and what changes it.

    Args:
        can_observe: Whether the app can say what an observer infers.
        can_measure: Whether it can measure how far a picture is from the original.
    """

    def __init__(self, *, can_observe: bool, can_measure: bool) -> None:
        with gr.Column(visible=False) as self.group:
            self.status = gr.Markdown(elem_id="status")
            self.set = gr.Markdown(elem_id="set")
            with gr.Row():
                # Beside each other on a phone too, with the dial in view.
                self.original = _picture(local("Your photo"), message("Your photo"), min_width=140)
                self.variant = _picture(
                    local("Variant"), message("Your photo with the faces replaced"), min_width=140
                )
            self.compare = gr.Checkbox(
                value=True, label=local("Compare with the original"), elem_id="compare"
            )
            self.compared = gr.Markdown(local(COMPARED), elem_id="compared", elem_classes="quiet")
            info = local("0 keeps the face, 1 replaces it completely")
            self.faces = _Faces(info)
            with gr.Column() as self.everyone:
                self.strength = gr.Slider(
                    0,
                    1,
                    DEFAULT_STRENGTH,
                    step=0.05,
                    label=local("Strength"),
                    info=info,
                    elem_id="strength",
                )
            self.privacy = gr.Markdown(elem_id="privacy")
            self.measure = gr.Checkbox(
                label=local(MEASURE),
                info=local(MEASURE_INFO),
                visible=can_measure,
                elem_id="measure",
            )
            self.likeness = gr.HTML(elem_id="likeness")
            with gr.Accordion(
                local("What this number says, and what it does not cover"), open=False
            ):
                self.number = gr.Markdown(number_text())
            with gr.Row():
                self.download = gr.Button(local("Download this variant"), variant="primary")
                self.find = gr.Button(local("Find your dial"))
                self.other = gr.Button(local("Another photo"))
            self.total = gr.Markdown(elem_classes="quiet")
            with gr.Accordion(local("What to keep"), open=False):
                self.keep = gr.CheckboxGroup(
                    _choices(KEEP_CHOICES),
                    label=local("Keep from the photo, at the price of some privacy"),
                )
                self.hide = gr.CheckboxGroup(
                    _choices(HIDE_CHOICES),
                    label=local("Hide, and draw at random"),
                )
                gr.Markdown(local(OWN_NOISE), elem_classes="quiet")
            self.observe = gr.Button(local(OBSERVE), visible=can_observe)
            self.observed = gr.HTML(elem_id="observed")
            self.file = gr.File(visible=False)


class _Faces:
    """Whose strength the dial sets, where there are several faces, and who is left as they are.

    Args:
        info: What the numbers on a dial mean.
    """

    def __init__(self, info: str) -> None:
        with gr.Column(visible=False) as self.group:
            self.chosen = gr.Radio(
                _choices([(ALL_FACES, 0)]),
                value=0,
                label=local(WHICH_FACE),
                info=local(WHICH_FACE_INFO),
                elem_id="faces",
            )
            # Set together with the dial of one face, so that both always belong together.
            self.number = gr.Number(0, visible=False, precision=0)
            with gr.Column(visible=False) as self.one:
                self.said = gr.Markdown(elem_id="face-said")
                self.strength = gr.Slider(
                    0, 1, DEFAULT_STRENGTH, step=0.05, info=info, elem_id="face-strength"
                )
                self.follow = gr.Button(local(FOLLOW), visible=False, elem_id="follow")
                self.permission = gr.Checkbox(label=local(PERMISSION), elem_id="permission")
                self.leave = gr.Button(interactive=False, variant="stop", elem_id="leave")
                self.again = gr.Button(visible=False, elem_id="again")

    @property
    def shown(self) -> list[Any]:
        """What shows the chosen face, in the order of `no_face` after the dial of all."""
        return [
            *(self.one, self.strength, self.follow, self.permission),
            *(self.leave, self.again, self.said, self.number),
        ]


class _BlindPage:
    """Four blinded variants and two questions, then what they say about the dial."""

    def __init__(self) -> None:
        with gr.Column(visible=False) as self.group:
            self.heading = gr.Markdown(local(QUESTION), elem_id="heading")
            with gr.Row(elem_id="tiles") as self.pictures:
                self.original = _picture(
                    local("Your photo"), message("The face in your photo"), min_width=240
                )
                with gr.Column(min_width=280):
                    self.tiles = []
                    for pair in ("AB", "CD"):
                        with gr.Row():
                            self.tiles += [_picture(x, TILES[x], min_width=120) for x in pair]
            self.token = gr.Textbox(visible=False)
            self._add_questions()
            self._add_result()

    def _add_questions(self) -> None:
        with gr.Column() as self.questions:
            self.best = gr.Radio(
                [*LETTERS, *_answers([NONE])], label=local("I would post"), elem_id="best"
            )
            self.just_right = gr.Radio(
                _answers(JUST_RIGHT), label=local("How is it?"), visible=False, elem_id="just-right"
            )
            self.why_not = gr.Radio(
                _answers(WHY_NOT), label=local("What is wrong?"), visible=False, elem_id="why-not"
            )
            self.agreed = gr.CheckboxGroup(
                _choices(CONSENT_CHOICES),
                value=[],
                label=local(CONSENT_QUESTION),
                elem_id="consent",
            )
            with gr.Accordion(local("What is kept, for what, for how long"), open=False):
                gr.Markdown(local(CONSENT_TEXT))
            with gr.Row():
                self.done = gr.Button(local("Show the strengths"), variant="primary", min_width=120)
                self.skip = gr.Button(local("Skip"), min_width=120)
                self.undo_before = gr.Button(
                    local("Undo the last answer"), visible=False, min_width=120
                )
                self.leave_before = gr.Button(local("Back to the dial"), min_width=120)

    def _add_result(self) -> None:
        with gr.Column(visible=False) as self.result:
            self.outcome = gr.Markdown(elem_id="outcome")
            self.chart = gr.HTML(elem_id="chart")
            self.progress = gr.Markdown(elem_id="progress")
            with gr.Row():
                self.more = gr.Button(local("Next four"), variant="primary", min_width=120)
                self.use = gr.Button(local("Use my strength"), min_width=120)
                self.undo = gr.Button(local("Undo"), min_width=120)
                self.leave = gr.Button(local("Back to the dial"), min_width=120)
            with gr.Accordion(local("Why this strength"), open=False):
                self.why = gr.Markdown(elem_id="why")

    @property
    def answers(self) -> list[Any]:
        """What an answer is made from, in the order of `JudgingHandlers.answer`."""
        return [
            self.token, self.best, self.just_right, self.why_not, self.agreed
        ]  # fmt: skip

    @property
    def standing(self) -> list[Any]:
        """What shows where the dial stands, in the order of `_standing` in `handlers.judging`."""
        return [self.chart, self.progress, self.why, self.more, self.use]


class _Models:
    """What to choose for a run of the loop, how far it is, and what the audit found.

    Args:
        timer: Looks at the run, whichever tab is shown.
        can_sign_in: Whether visitors can publish to accounts of their own.
    """

    def __init__(self, timer: gr.Timer, *, can_sign_in: bool) -> None:
        self.timer = timer
        self.run = gr.State(None, time_to_live=CACHE_SECONDS[1])
        gr.Markdown(local(MODELS_INTRO))
        if can_sign_in:
            gr.LoginButton(SIGN_IN, SIGN_OUT, elem_id="sign-in")
            gr.Markdown(local(SIGN_IN_NOTE), elem_classes="quiet")
        chosen = LoopSettings()
        with gr.Row():
            self.target = gr.Radio(
                _choices(TARGET_CHOICES), value=chosen.target, label=local("Target model")
            )
            self.label = gr.Radio(
                _choices(LABEL_CHOICES), value=chosen.label, label=local("What it shall tell")
            )
            self.share = gr.Radio(
                _choices(SHARE_CHOICES),
                value=chosen.share,
                label=local("People who turn their dial"),
            )
        with gr.Accordion(local("More choices"), open=False):
            self.method = gr.Radio(
                _choices(method_choices(chosen.target)),
                value=chosen.method,
                label=local("Unlearning method"),
                elem_id="method",
            )
            self.n_models = gr.Radio(
                N_MODELS_CHOICES,
                value=chosen.n_models,
                label=local("Shadow models of each kind"),
                info=local(N_MODELS_INFO),
            )
            self.n_people = gr.Radio(
                N_PEOPLE_CHOICES, value=chosen.n_people, label=local("People in the training data")
            )
        with gr.Row():
            self.start = gr.Button(local("Run the loop"), variant="primary")
            self.cancel = gr.Button(local("Cancel"), variant="stop", visible=False)
        self.said = gr.Markdown(local(DURATION), elem_id="loop-said")
        self.steps = gr.HTML(visible=False, elem_id="loop-steps")
        with gr.Column(visible=False) as self.result:
            self.verdict = gr.Markdown(elem_id="verdict")
            self.charts = gr.HTML(elem_id="audit")
            gr.Markdown(local(LEGEND), elem_classes="quiet")
            with gr.Accordion(local("All checks, in numbers"), open=False):
                self.numbers = gr.Markdown(elem_id="numbers")
            with gr.Row():
                self.download = gr.Button(local("Download model and evidence"))
                self.publish = gr.Button(local("Publish to the Hub"), interactive=False)
            with gr.Row(visible=can_sign_in):
                self.own_name = gr.Textbox(
                    OWN_NAME, label=local("Repository in your account"), max_lines=1, max_length=96
                )
                self.publish_own = gr.Button(local("Publish to your account"))
            self.publish_said = gr.Markdown(elem_id="publish-said")
            self.file = gr.File(visible=False)

    @property
    def choices(self) -> list[Any]:
        """What a run is made from, in the order of `start_loop`."""
        return [self.target, self.label, self.share, self.method, self.n_models, self.n_people]

    @property
    def progress(self) -> list[Any]:
        """What shows how far a run is, in the order of `_progress` in `handlers.models`."""
        return [self.said, self.steps, self.start, self.cancel, self.timer]


class _Crowd:
    """What the published answers say together."""

    def __init__(self) -> None:
        gr.Markdown(local(CROWD_INTRO))
        self.source = gr.Radio(
            _choices(SOURCE_CHOICES), value=EVERYTHING, label=local("Whose photos")
        )
        self.said = gr.Markdown(elem_id="crowd-said")
        self.charts = gr.HTML(elem_id="crowd")
        with gr.Accordion(local("In numbers"), open=False):
            self.table = gr.Markdown(elem_id="crowd-numbers")


def _picture(label: Any, alt_text: str, *, min_width: int) -> gr.Image:
    return gr.Image(
        label=label,
        alt_text=alt_text,
        interactive=False,
        type="filepath",
        buttons=[],
        min_width=min_width,
        elem_classes="picture",
    )


def _add_erasure(handlers: JudgingHandlers, memory: _Memory, blind: _BlindPage) -> gr.Markdown:
    """Add the button that deletes, and the line that says how answers are kept."""
    with gr.Accordion(local("Delete my answers"), open=False):
        storage = gr.Markdown(elem_id="storage", elem_classes="quiet")
        info = local("Leave it empty to delete what was saved in this visit")
        code = gr.Textbox(label=local("Your code"), info=info, max_lines=1, max_length=64)
        erase = gr.Button(local("Delete my answers"), variant="stop")
        outcome = gr.Markdown(elem_id="erased")
    stale = [blind.chart, blind.progress, blind.why]
    erasing = erase.click(
        for_visitor(handlers.erase),
        [code, memory.history, memory.rater, memory.visit],
        [outcome, code, memory.history, storage, *stale, memory.rater, memory.visit],
        **_QUICK,
    )
    erasing.success(None, memory.history, None, js=CLEAR_RECORD)
    return storage


def _wire_photo(
    handlers: PhotoHandlers, memory: _Memory, start: _Start, dial: _Dial, blind: _BlindPage
) -> None:
    known = [memory.history, memory.visit]
    groups = [start.group, dial.group, blind.group]
    shown = [dial.status, dial.original, dial.variant, dial.strength, dial.privacy]
    faces = [dial.faces.group, dial.faces.chosen, dial.everyone, *dial.faces.shown]
    opened = [*groups, *shown, dial.keep, dial.hide, dial.set, dial.total, *faces, memory.visit]
    # Not `input`, which a picture from the camera does not fire.
    # Where the place in the queue is seen: nothing of a group that is not shown yet is.
    slow = {**_SLOW, "show_progress_on": start.photo}
    reading = start.photo.change(
        for_visitor(handlers.open_upload), [start.photo, *known], opened, **slow
    )
    # The file is gone whether it was a photo or not, so the field is emptied.
    for outcome in (reading.success, reading.failure):
        outcome(lambda: None, None, start.photo, show_progress="hidden", **_QUICK)
    start.gallery.select(for_visitor(handlers.open_example), known, opened, **slow)
    closed = [*groups, dial.original, dial.variant, dial.set, dial.total, memory.visit]
    dial.other.click(for_visitor(handlers.close_photo), [memory.visit], closed, **_QUICK)


def _wire_dial(handlers: PhotoHandlers, memory: _Memory, dial: _Dial) -> None:
    visit = memory.visit
    shown = [dial.variant, dial.privacy, visit]
    dial.compare.input(
        for_visitor(handlers.compare), [dial.compare], [dial.original, dial.compared], **_LIVE
    )
    dial.strength.input(for_visitor(handlers.turn), [dial.strength, visit], shown, **_LIVE)
    policy = [dial.keep, dial.hide, dial.strength, visit]
    dial.keep.input(for_visitor(handlers.set_policy), policy, shown, **_LIVE)
    dial.hide.input(for_visitor(handlers.set_policy), policy, shown, **_LIVE)
    one = [dial.faces.strength, dial.faces.number, dial.strength, visit]
    settling = dial.download.click(for_visitor(handlers.settle), one, [visit], **_LIVE)
    making = settling.success(
        for_visitor(handlers.download),
        [dial.strength, visit],
        [dial.file, dial.total, visit],
        **_QUICK,
    )
    making.success(None, dial.file, None, js=SAVE_FILE)


def _wire_faces(handlers: FaceHandlers, memory: _Memory, dial: _Dial) -> None:
    visit, faces = memory.visit, dial.faces
    controls = [dial.everyone, *faces.shown]
    one = [faces.strength, faces.number, dial.strength, visit]
    made = [dial.variant, dial.privacy]
    faces.chosen.input(
        for_visitor(handlers.choose_face),
        [faces.chosen, dial.strength, visit],
        [*controls, visit],
        **_LIVE,
    )
    turned = [*made, faces.follow, faces.said, visit]
    faces.strength.input(for_visitor(handlers.turn_face), one, turned, **_LIVE)
    faces.permission.input(for_visitor(handlers.permit), [faces.permission], [faces.leave], **_LIVE)
    named = [faces.number, dial.strength, visit]
    for button, handler, known in (
        (faces.follow, for_visitor(handlers.follow_dial), named),
        (faces.leave, for_visitor(handlers.leave_face), [faces.permission, *named]),
        (faces.again, for_visitor(handlers.anonymize_face), named),
    ):
        changing = button.click(handler, known, [*controls, *made, visit], **_LIVE)
        changing.success(None, None, None, js=FOCUS_FACE)
    looking = dial.observe.click(for_visitor(handlers.observe), named, [dial.observed], **_LIVE)
    looking.success(None, None, None, js=FOCUS_OBSERVED)
    for changed in (dial.variant.change, faces.chosen.change):
        changed(None, None, dial.observed, js=FORGET)


def _wire_likeness(handlers: LikenessHandlers, memory: _Memory, dial: _Dial) -> None:
    asked = [dial.measure, dial.strength, memory.visit]
    # The visit only goes in: what changes it may be on its way at the same time.
    for changed in (dial.measure.input, dial.variant.change):
        changed(for_visitor(handlers.measure), asked, [dial.likeness], **_LIVE)


def _wire_page(handlers: JudgingHandlers, memory: _Memory, dial: _Dial, blind: _BlindPage) -> None:
    second = [blind.just_right, blind.why_not]
    asked = [
        *(blind.heading, blind.questions, blind.result, *blind.tiles, blind.original),
        *(dial.group, blind.group, blind.pictures, blind.undo_before),
        *(blind.token, blind.best, *second, memory.visit),
    ]
    known = [memory.history, memory.visit]
    for button in (dial.find, blind.skip, blind.more):
        asking = button.click(for_visitor(handlers.ask), known, asked, **_QUICK)
        asking.success(None, None, None, js=SCROLL_TO_HEADING)
    choice = [blind.best, memory.visit]
    blind.best.input(for_visitor(handlers.choose), choice, [*second, memory.visit], **_LIVE)
    left = [dial.group, blind.group, blind.token, memory.visit]
    for button in (blind.leave, blind.leave_before):
        button.click(for_visitor(handlers.leave), [memory.visit], left, **_QUICK)


def _wire_result(
    handlers: JudgingHandlers, memory: _Memory, dial: _Dial, blind: _BlindPage, storage: gr.Markdown
) -> None:
    known = [memory.history, memory.visit]
    revealed = [
        *(blind.heading, blind.questions, blind.result, blind.outcome, *blind.standing),
        *(blind.token, memory.history, storage, memory.visit),
    ]
    blind.done.click(
        for_visitor(handlers.answer),
        [*blind.answers, memory.history, memory.rater, memory.visit],
        [*blind.tiles, memory.rater, *revealed],
        **_QUICK,
    )
    for button in (blind.undo, blind.undo_before):
        button.click(for_visitor(handlers.undo), known, [blind.pictures, *revealed], **_QUICK)
    made = [dial.set, dial.strength, dial.variant, dial.privacy]
    faces = [dial.faces.chosen, dial.everyone, *dial.faces.shown]
    used = [dial.group, blind.group, *made, *faces]
    using = blind.use.click(
        for_visitor(handlers.use), known, [*used, blind.token, memory.visit], **_QUICK
    )
    using.success(None, None, None, js=SCROLL_TO_DIAL)


def _wire_crowd(handlers: CrowdHandlers, crowd: _Crowd, tab: gr.Tab) -> None:
    shown = [crowd.said, crowd.charts, crowd.table]
    for shows in (tab.select, crowd.source.change):
        shows(for_visitor(handlers.show_crowd), crowd.source, shown, **_QUICK)


def _wire_models(handlers: ModelHandlers, models: _Models, sign_in: SignIn | None) -> None:
    run = models.run
    if sign_in is not None:
        publish_own = for_visitor(OwnModelHandlers(sign_in).publish_own)
        named = [run, models.own_name]
        models.publish_own.click(publish_own, named, models.publish_said, **_QUICK)
    models.target.input(for_visitor(handlers.set_target), [models.target], [models.method], **_LIVE)
    starting = models.start.click(
        for_visitor(handlers.start_loop),
        [*models.choices, run],
        [*models.progress, models.result, run],
        **_QUICK,
    )
    starting.success(None, None, None, js=SCROLL_TO_LOOP)
    found = [models.result, models.verdict, models.charts, models.numbers]
    shown = [*models.progress, *found, models.publish, models.publish_said, run]
    watching = models.timer.tick(for_visitor(handlers.watch_loop), [run], shown, **_LIVE)
    # One message, not one each second.
    watching.failure(lambda: gr.Timer(active=False), None, models.timer, **_LIVE)
    models.cancel.click(for_visitor(handlers.cancel_loop), [run], [models.cancel], **_LIVE)
    making = models.download.click(
        for_visitor(handlers.download_model), [run], [models.file], **_QUICK
    )
    making.success(None, models.file, None, js=SAVE_FILE)
    models.publish.click(
        for_visitor(handlers.publish_model), [run], [models.publish_said], **_QUICK
    )


def _wire_api(page: gr.Blocks, handlers: ApiHandlers) -> None:
    """Open what programs may call, each with the types of its signature."""
    slow = {**_SLOW, "api_visibility": "public"}
    quick = {**_QUICK, "api_visibility": "public"}
    _open_call(page, handlers.anonymize, **slow)
    _open_call(page, handlers.ladder, **slow)
    _open_call(page, handlers.recommend, **quick)
    _open_call(page, handlers.health, **quick)


def _open_call(page: gr.Blocks, handler: Callable[..., Any], **limits: Any) -> None:
    opened = api(for_program(handler), api_name=handler.__name__, **limits)
    for number in opened["inputs"]:
        object.__setattr__(page.blocks[number], "async_move_resource_to_block_cache", _refuse_links)


def launch_settings(
    *,
    data_dir: Path,
    host: str,
    port: int,
    report: Callable[[], Mapping[str, Any]],
    limiter: Limiter | None = None,
    page: gr.Blocks | None = None,
) -> dict[str, Any]:
    """Return how the page is launched: nothing kept, nothing listed, nothing served beyond it.

    Args:
        data_dir: Never served.
        host: Address to listen on.
        port: Port.
        report: What `GET /health` tells.
        limiter: Says what is too much; one for a server that no proxy stands in front of if None.
        page: What is launched, to open its public calls to agents too; None leaves them out.
    """
    limiter = limiter or Limiter()
    return {
        "server_name": host,
        "server_port": port,
        "run_history": False,
        "enable_monitoring": False,
        "show_error": False,
        "max_file_size": MAX_FILE_SIZE,
        "allowed_paths": [],
        "blocked_paths": [str(data_dir)],
        "strict_cors": True,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": page is not None,
        "share": False,
        # It would give up where its own page does not answer within three seconds, as it may not
        # on a busy machine; that the server answers at all it asks before.
        "_frontend": False,
        # Not its settings, which would change the language of half the page.
        "footer_links": ["gradio"],
        "state_session_capacity": 64,
        "app_kwargs": {
            "middleware": [
                (SecurityHeaders, (), {}),
                (HealthRoute, (), {"report": report}),
                (OwnPagesOnly, (), {"n_proxies": limiter.n_proxies}),
                (ClosedDoors, (), {}),
                (SmallBodies, (), {}),
                (QuietErrors, (), {}),
                (RateLimit, (), {"limiter": limiter}),
                (PoliteQueue, (), {}),
                (NoStore, (), {}),
                *(() if page is None else [_mcp_door(page)]),
            ]
        },
        # Messages are named by their English text, so that no other language needs a catalogue.
        "i18n": gr.I18n(de=speaker("de").catalogue.fixed()),
        "theme": gr.themes.Soft(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ).set(**CONTRAST),
        "css": CSS,
    }


def _mcp_door(page: gr.Blocks) -> tuple[type[McpDoor], tuple[()], dict[str, Any]]:
    """Return the middleware that stands before the page's tools, as Starlette takes it."""

    def is_ready() -> bool:
        server = page.mcp_server_obj
        return server is not None and server.local_url is not None

    place = {"folder": Path(page.GRADIO_CACHE), "uploads": page.upload_file_set}
    return McpDoor, (), {**place, "is_ready": is_ready}


def sweeper_of(page: gr.Blocks, folder: Path, *, seconds: float = CACHE_SECONDS[1]) -> Sweeper:
    """Return what deletes old files of visitors, and spares those that the page itself shows."""
    kept = [path for block in page.blocks.values() for path in block.keep_in_cache]
    return Sweeper(folder, seconds=seconds, spared=kept, known=page.upload_file_set)


def queue_length(page: gr.Blocks) -> int:
    """Return how many calls wait for their turn."""
    return sum(len(line.queue) for line in [*page._queue.event_queue_per_concurrency_id.values()])


def serve(page: gr.Blocks, settings: Mapping[str, Any]) -> None:
    """Serve until SIGTERM or Ctrl-C; nothing comes in any more when it returns."""
    try:
        page.launch(**settings)
    except KeyboardInterrupt:  # Before Gradio waits for it.
        page.close(verbose=False)


def warm_up(anonymizer: Anonymizer, stopped: threading.Event) -> None:
    """Load what is loaded at the first photo, so that the first visitor need not wait for it.

    Native code that a dying interpreter cuts short aborts the process, so `main` waits for the
    step at hand and leaves out the next.
    """
    blank = np.zeros((SIZE, SIZE, 3), np.uint8)
    anonymizer.find_faces(blank)
    if stopped.is_set():
        return
    quad = np.array([(0, 0), (SIZE, 0), (SIZE, SIZE), (0, SIZE)], np.float64)
    request = FaceRequest(blank, blank, quad, DEFAULT_STRENGTH, NoiseKey.fresh(), AttributePolicy())
    anonymizer.backend.generate([request])


def _previews_of(examples: Sequence[Path], *, model: str) -> tuple[Preview, ...]:
    """Return the examples' previews, none where they do not fit the weights in use."""
    try:
        return read_previews(examples, model=model)
    except InvalidArgumentError as error:
        sys.stderr.write(f"{error}\n")
        return ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the app and serve until it is stopped; return 2 for bad input."""
    environment = os.environ
    parser = argparse.ArgumentParser(description="Start Privacy Dial in the browser.")
    # A Space sets GRADIO_SERVER_NAME; elsewhere only this machine can reach the page.
    host = environment.get("GRADIO_SERVER_NAME", "127.0.0.1")
    parser.add_argument("--host", default=host, help="address to listen on")
    parser.add_argument("--port", type=int, default=environment.get("PORT", "7860"), help="port")
    options = parser.parse_args(arguments)
    home = Path.home() / ".local" / "share" / "privacy-dial"
    data_dir = Path(environment.get("PRIVACY_DIAL_DATA_DIR") or home).resolve()
    model = Path(environment.get("PRIVACY_DIAL_MODEL") or MODEL_FOLDER)
    place = {
        "dataset": environment.get("PRIVACY_DIAL_DATASET") or None,
        "bucket": environment.get("PRIVACY_DIAL_BUCKET") or None,
        "token": environment.get("HF_TOKEN") or None,
        "endpoint": environment.get("HF_ENDPOINT") or None,
    }
    # Requests run beside each other; several threads for one of them would only get in the way.
    torch.set_num_threads(1)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if data_dir.is_relative_to(Path.cwd()):
            raise InvalidArgumentError(
                f"`PRIVACY_DIAL_DATA_DIR` must be outside {Path.cwd()}, whose files the page may "
                f"serve, got {str(data_dir)!r}. Choose another folder."
            )
        limiter = Limiter(n_proxies=count_proxies(environment.get("PRIVACY_DIAL_PROXIES", "")))
        keys = load_keys(data_dir, environment=environment)
        sys.stderr.write(f"{keys.notice}\n")
        with (
            RatingStore(data_dir / DATABASE_NAME) as store,
            tempfile.TemporaryDirectory(prefix="privacy-dial-") as cache,
        ):
            environment["GRADIO_TEMP_DIR"] = cache
            backend = EmbeddedBackend.load(model)
            grant = find_grant()
            anonymizer = Anonymizer(
                backend if grant is None else GrantedBackend(backend, grant), default_detector()
            )
            threading.Thread(target=warm_up, args=[anonymizer, stopped]).start()
            remote, fault = open_copy(store, **place)
            if fault:
                sys.stderr.write(f"{fault}\n")
            sync = Sync(store, remote)
            prior, said = starting_prior(
                ReleaseAccount(data_dir / ACCOUNT_NAME),
                model_version=f"{backend.name}@{backend.revision}",
            )
            if said:
                sys.stderr.write(f"{said}\n")
            kind = next((name for name in ("dataset", "bucket") if place[name]), "none")
            page: gr.Blocks
            report = functools.partial(
                health_report,
                sync,
                fault=fault,
                kind=kind,
                model=backend.revision,
                load=lambda: Load(queue_length(page), QUEUE_LIMIT, limiter.n_refused),
            )
            loops = LoopQueue(
                functools.partial(plan_loop, data=ROOT / "examples" / "labelled"),
                environment={name: environment[name] for name in PASSED_ON if name in environment},
            )
            page = build_page(
                anonymizer=anonymizer,
                desk=RatingDesk(
                    store=store,
                    keys=keys,
                    sync=sync,
                    model=backend.revision,
                    floor=privacy_floor(backend.model.curve),
                    prior=prior,
                ),
                loops=loops,
                curve=backend.model.curve,
                clip_radius=backend.clip_radius,
                examples=(examples := example_photos(ROOT / "examples")),
                previews=_previews_of(examples, model=backend.revision),
                cache=Path(cache),
                report=report,
                publishing=open_publisher(
                    environment.get("PRIVACY_DIAL_MODELS") or None,
                    token=place["token"],
                    endpoint=place["endpoint"],
                ),
                sign_in=find_sign_in(environment),
                observer=Observer(load_predictor()),
                meter=find_meter(DlibRecogniser(), backend.model.curve),
                crowd=open_crowd(
                    environment.get("PRIVACY_DIAL_PUBLIC") or None,
                    model_version=f"{backend.name}@{backend.revision}",
                    endpoint=place["endpoint"],
                ),
            )
            page.queue(max_size=QUEUE_LIMIT, default_concurrency_limit=1, api_open=False)
            settings = launch_settings(
                data_dir=data_dir,
                host=options.host,
                port=options.port,
                report=report,
                limiter=limiter,
                page=page,
            )
            sweeper = sweeper_of(page, Path(cache))
            with (
                running(sync),
                contextlib.closing(loops),
                sweeping(sweeper, every=CACHE_SECONDS[0]),
            ):
                serve(page, settings)
    except KeyboardInterrupt:  # SIGTERM or Ctrl-C while the model loads.
        return 0
    except (PrivacyDialError, FeedbackError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        stopped.set()
    return 0


if __name__ == "__main__":
    sys.exit(main())
