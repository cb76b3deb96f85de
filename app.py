"""The page: a photo, a live dial, four blinded variants, a download. A thin Gradio shell.

Builds the page from collaborators it is given; what a visit is stands in `visit.py`. The
environment is read once, in `main`.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
import numpy as np
import torch
from PIL import Image

from feedback import (
    DATABASE_NAME,
    FeedbackError,
    InvalidRatingError,
    RatingStore,
    load_keys,
)
from feedback.columns import Source
from feedback.errors import StoreError
from privacy_core.anonymize import Anonymizer
from privacy_core.backends.base import FaceRequest
from privacy_core.backends.embedded import MODEL_FOLDER, EmbeddedBackend
from privacy_core.errors import (
    FaceFailedError,
    InvalidArgumentError,
    PhotoError,
    PrivacyDialError,
)
from privacy_core.faces import DigitalSourceType, default_detector, encode_png, read_photo
from privacy_core.faces.align import SIZE
from privacy_core.noise import NoiseKey
from privacy_core.privacy import NOT_COVERED
from privacy_core.report import verified_share, worst_case
from privacy_core.schema import RGB, AttributePolicy, StrengthCurve, Variant
from visit import DEFAULT_STRENGTH, OpenPhotos, RatingDesk, Visit, reduced, tile
from wording import (
    ABOUT,
    ANNOUNCE,
    CONSENT_LABEL,
    CONSENT_TEXT,
    CSS,
    EXAMPLES_LINE,
    INTRO,
    JUST_RIGHT,
    LETTERS,
    NUMBER,
    OWN_NOISE,
    SAVE_FILE,
    found_line,
    measured_line,
    privacy_line,
    reveal_line,
    saved_line,
    total_line,
    worst_line,
)

ROOT = Path(__file__).resolve().parent
PREVIEW_SIDE = 720
CACHE_SECONDS = (60, 900)
"""How often old pictures are looked for, and the age from which they are deleted."""
MAX_FILE_SIZE = "25mb"

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


def for_visitor(handler: Callable[P, T]) -> Callable[P, T]:
    """Show expected failures as their sentence and anything else as one that tells nothing."""

    @functools.wraps(handler)
    def handle(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return handler(*args, **kwargs)
        except FaceFailedError as error:
            message = (
                f"Face {error.index} of {error.n_faces} could not be anonymized: {error.reason} "
                "Nothing was made. Cut the photo down to the other faces, or choose another."
            )
        except StoreError as error:
            sys.stderr.write(f"The store of ratings: {type(error).__name__}\n")
            message = "Answers cannot be reached right now. Please try again later."
        except (PrivacyDialError, FeedbackError) as error:
            message = str(error)
        except gr.Error:
            raise
        except Exception as error:  # noqa: BLE001 - what it says may hold what was uploaded
            sys.stderr.write(f"{handler.__qualname__} failed: {type(error).__name__}\n")
            message = "Something went wrong here. Please try again."
        raise gr.Error(message, duration=None, title="That did not work", print_exception=False)

    return handle


class Handlers:
    """What the page's controls do; every value about a visitor is in the `Visit` they are given.

    Args:
        anonymizer: Makes variants.
        desk: Asks and keeps.
        examples: Pictures of nobody.
        cache: Folder that the page serves pictures from.
        curve: How strength was measured, None where it was not.
        uploads: Paths that the server itself gave to uploads; others are never opened.
    """

    def __init__(
        self,
        anonymizer: Anonymizer,
        desk: RatingDesk,
        *,
        uploads: set[str],
        examples: Sequence[Path],
        cache: Path,
        curve: StrengthCurve | None,
    ) -> None:
        self._anonymizer = anonymizer
        self._desk = desk
        self._uploads = uploads
        self._examples = tuple(examples)
        self._cache = cache
        self._curve = curve
        self._open_photos = OpenPhotos()
        self._source_type: DigitalSourceType = anonymizer.backend.digital_source_type
        self._mark = _xmp_packet(self._source_type)

    @for_visitor
    def open_upload(
        self, path: str | None, visit: Visit | None, progress: gr.Progress = _PROGRESS
    ) -> Any:
        """Read an uploaded photo or webcam frame, and delete the file at once."""
        if path is None:  # The field was emptied, or the camera chosen.
            return gr.skip()
        return self._open(_take(path, self._uploads), "own_photo", visit, progress)

    @for_visitor
    def open_example(
        self,
        event: gr.SelectData,
        visit: Visit | None,
        progress: gr.Progress = _PROGRESS,
    ) -> tuple[Any, ...]:
        """Read one of the example pictures."""
        index = event.index
        if not isinstance(index, int) or not 0 <= index < len(self._examples):
            raise PhotoError("`example` must be one of those shown, got another. Choose one.")
        return self._open(self._examples[index].read_bytes(), "synthetic_face", visit, progress)

    @for_visitor
    def turn(self, strength: float, visit: Visit | None) -> tuple[Any, ...]:
        """Show the variant at another strength."""
        visit = visit or Visit()
        variant = visit.photo().variant(strength)
        return self._preview(variant.image), self._line(variant), visit

    @for_visitor
    def set_policy(
        self, keep: list[str], hide: list[str], strength: float, visit: Visit | None
    ) -> tuple[Any, ...]:
        """Treat attributes differently and show the variant again."""
        visit = visit or Visit()
        visit.set_policy(AttributePolicy(keep=tuple(sorted(keep)), hide=tuple(sorted(hide))))
        return self.turn(strength, visit)

    @for_visitor
    def download(self, strength: float, visit: Visit | None) -> tuple[Any, ...]:
        """Make the file of the variant that is shown, and count it."""
        visit = visit or Visit()
        variant = visit.photo().variant(strength)
        data = encode_png(variant.image, digital_source_type=self._source_type)
        file = self._save(data, "privacy-dial.png")
        return file, total_line(visit.release(variant), visit.n_downloads), visit

    @for_visitor
    def ask(self, request: gr.Request, visit: Visit | None) -> tuple[Any, ...]:
        """Start a page of blinded variants."""
        visit = visit or Visit()
        token, variants = self._desk.ask(visit, session=_session(request))
        box = visit.photo().faces[0].box
        tiles = [self._preview(tile(v.image, box)) for v in variants]
        return (
            *tiles,
            self._preview(tile(visit.photo().photo.pixels, box)),
            *_shown(dial=False, page=True),
            token,
            None,
            gr.update(value=None, visible=False),
            False,
            "",
            visit,
        )

    @for_visitor
    def choose(self, visit: Visit | None) -> tuple[Any, ...]:
        """Ask the second question once a variant is chosen."""
        visit = visit or Visit()
        self._desk.note_choice(visit)
        return gr.update(visible=True), visit

    @for_visitor
    def answer(
        self,
        request: gr.Request,
        token: str,
        best: str | None,
        just_right: str | None,
        has_consent: bool,
        visit: Visit | None,
    ) -> tuple[Any, ...]:
        """Take the answer, reveal the strengths, and set the dial to the chosen one."""
        visit = visit or Visit()
        if best is None or just_right is None:
            raise InvalidRatingError(
                "Both questions must be answered, got one or none. Choose a picture, then say how "
                "it is, or skip."
            )
        opened = visit.photo()  # Before anything is stored: it may have been dropped.
        outcome = self._desk.answer(
            visit,
            token=token or "",
            session=_session(request),
            best=_position(LETTERS, best),
            just_right=_position(JUST_RIGHT, just_right),
            has_consent=has_consent is True,
        )
        chosen = outcome.variants[outcome.best]
        lines = (
            reveal_line(outcome.variants, outcome.best),
            saved_line(outcome.n_saved, outcome.recovery_code),
        )
        return (
            *_shown(dial=True, page=False),
            "\n\n".join(lines),
            chosen.strength,
            self._preview(opened.variant(chosen.strength).image),
            self._line(chosen),
            "",
            visit,
        )

    @for_visitor
    def skip(self, visit: Visit | None) -> tuple[Any, ...]:
        """Leave the page without an answer."""
        visit = visit or Visit()
        visit.question = None
        return *_shown(dial=True, page=False), "", visit

    @for_visitor
    def close_photo(self, visit: Visit | None) -> tuple[Any, ...]:
        """Drop the photo and go back to the start."""
        visit = visit or Visit()
        visit.forget_photo()
        return gr.update(visible=True), *_shown(dial=False, page=False), None, None, "", "", visit

    @for_visitor
    def erase(self, code: str, visit: Visit | None) -> tuple[Any, ...]:
        """Erase a rater's answers."""
        visit = visit or Visit()
        n_erased = self._desk.erase(visit, code=code or "")
        return f"Deleted: {n_erased} rows. Nothing of these answers is left here.", "", visit

    def _open(
        self, data: bytes, source: Source, visit: Visit | None, progress: gr.Progress
    ) -> tuple[Any, ...]:
        visit = visit or Visit()
        progress(0.1, desc="Looking for faces")
        visit.open(self._anonymizer, read_photo(data), source=source)
        self._open_photos.add(visit)
        progress(0.7, desc="Making a variant")
        opened = visit.photo()
        variant = opened.variant(DEFAULT_STRENGTH)
        return (
            gr.update(visible=False),
            *_shown(dial=True, page=False),
            found_line(len(opened.faces), opened.photo.notes),
            self._preview(opened.photo.pixels),
            self._preview(variant.image),
            DEFAULT_STRENGTH,
            self._line(variant),
            [],
            [],
            "",
            "",
            visit,
        )

    def _line(self, variant: Variant) -> str:
        """Say what is guaranteed, and what was measured where the policy is the measured one."""
        measured = measured_line(verified_share(variant, self._curve))
        rate = worst_case(variant, self._curve)["true_positive_rate"]
        worst = worst_line(rate) if measured and isinstance(rate, float) else ""
        return privacy_line(variant) + measured + worst

    def _preview(self, pixels: RGB) -> str:
        """Write a small copy into the page's cache and return its path."""
        buffer = io.BytesIO()
        small = Image.fromarray(np.ascontiguousarray(reduced(pixels, PREVIEW_SIDE)))
        small.save(buffer, "JPEG", quality=90, xmp=self._mark)
        return self._save(buffer.getvalue(), "picture.jpg")

    def _save(self, data: bytes, name: str) -> str:
        """Write a file for the browser under a random folder, which nobody can compute."""
        folder = self._cache / secrets.token_hex(16)
        folder.mkdir()
        (folder / name).write_bytes(data)
        return str(folder / name)


def _shown(*, dial: bool, page: bool) -> tuple[Any, Any]:
    return gr.update(visible=dial), gr.update(visible=page)


def _position(choices: Sequence[str], choice: str) -> int:
    if choice not in choices:
        raise InvalidRatingError(f"An answer must be one of {', '.join(choices)}; choose one.")
    return choices.index(choice)


def _session(request: gr.Request) -> str:
    return request.session_hash or "no session"


def _take(path: str, uploads: set[str]) -> bytes:
    """Return an upload's bytes and delete the file, which holds all of its metadata.

    A request may name any path: only what was uploaded here is opened, and only once.

    Raises:
        PhotoError: It was not uploaded here, or is gone.
    """
    if path not in uploads:
        raise PhotoError("`photo` must be uploaded here, got another file. Choose it again.")
    uploads.discard(path)
    try:
        data = Path(path).read_bytes()
        Path(path).unlink()
    except OSError as error:
        raise PhotoError(
            "`photo` must still be there when it is read, got none. Choose it again."
        ) from error
    return data


async def _refuse_links(path: str | Path | None) -> str | None:
    """Stand in for Gradio's own step, which would download whatever address a request names."""
    if path is not None and "://" in str(path):
        raise PhotoError("`photo` must be uploaded here, got a link. Save the picture first.")
    return None if path is None else str(path)


def _path_of(payload: Any) -> str | None:
    """Give the upload's path as it is: `read_photo` decides what a picture is."""
    return None if payload is None else payload.path


def _xmp_packet(source_type: DigitalSourceType) -> bytes:
    """Return the mark of `encode_png`, for previews."""
    png = encode_png(np.zeros((1, 1, 3), np.uint8), digital_source_type=source_type)
    with Image.open(io.BytesIO(png)) as image:
        return str(image.info["XML:com.adobe.xmp"]).encode()


def build_page(
    *,
    anonymizer: Anonymizer,
    desk: RatingDesk,
    cache: Path,
    examples: Sequence[Path] = (),
    curve: StrengthCurve | None = None,
) -> gr.Blocks:
    """Build the page.

    Args:
        anonymizer: Makes variants.
        desk: Asks for answers and keeps them.
        cache: Folder for pictures on their way to the browser, the value of `GRADIO_TEMP_DIR`.
        examples: Pictures to try.
        curve: How strength was measured, None where it was not.
    """
    page: gr.Blocks
    with gr.Blocks(
        title="Privacy Dial", analytics_enabled=False, delete_cache=CACHE_SECONDS
    ) as page:
        handlers = Handlers(
            anonymizer,
            desk,
            uploads=page.upload_file_set,
            examples=examples,
            cache=cache,
            curve=curve,
        )
        visit = gr.State(None, time_to_live=CACHE_SECONDS[1])
        gr.Markdown(INTRO)
        start = _Start(examples)
        dial = _Dial()
        blind = _BlindPage()
        _add_erasure(handlers, visit)
        with gr.Accordion("About", open=False):
            gr.Markdown(ABOUT)
        _wire_photo(handlers, visit, start, dial, blind)
        _wire_dial(handlers, visit, dial)
        _wire_page(handlers, visit, dial, blind)
        page.load(None, None, None, js=ANNOUNCE)
    return page


class _Start:
    """Where a photo comes from."""

    def __init__(self, examples: Sequence[Path]) -> None:
        with gr.Column() as self.group:
            self.photo = gr.Image(
                label="Your photo",
                type="filepath",
                height=320,
                elem_id="photo",
                alt_text="The photo you chose",
            )
            # As it would decode the file itself, and name its faults in no one's words.
            self.photo.preprocess = _path_of  # type: ignore[method-assign]
            object.__setattr__(self.photo, "async_move_resource_to_block_cache", _refuse_links)
            gr.Markdown(EXAMPLES_LINE, visible=bool(examples))
            self.gallery = gr.Gallery(
                [(str(path), f"Example {i}") for i, path in enumerate(examples, 1)],
                label="Example photos",
                show_label=False,
                columns=6,
                height=None,
                elem_id="examples",
                allow_preview=False,
                interactive=False,
                buttons=[],
                visible=bool(examples),
            )


class _Dial:
    """The photo beside its variant, and what changes it."""

    def __init__(self) -> None:
        with gr.Column(visible=False) as self.group:
            self.status = gr.Markdown(elem_id="status")
            self.outcome = gr.Markdown(elem_id="outcome")
            with gr.Row():
                self.original = _picture("Your photo", "Your photo", min_width=240)
                self.variant = _picture(
                    "Variant", "Your photo with the faces replaced", min_width=240
                )
            info = "0 keeps the face, 1 replaces it completely"
            self.strength = gr.Slider(
                0, 1, DEFAULT_STRENGTH, step=0.05, label="Strength", info=info, elem_id="strength"
            )
            self.privacy = gr.Markdown(elem_id="privacy")
            with gr.Accordion("What this number says, and what it does not cover", open=False):
                gr.Markdown(NUMBER + "\n".join(f"- {sentence}" for sentence in NOT_COVERED))
            with gr.Row():
                self.download = gr.Button("Download this variant", variant="primary")
                self.find = gr.Button("Find your dial")
                self.other = gr.Button("Another photo")
            self.total = gr.Markdown(elem_classes="quiet")
            with gr.Accordion("What to keep", open=False):
                self.keep = gr.CheckboxGroup(
                    [("My smile", "smiling"), ("My glasses", "eyeglasses")],
                    label="Keep from the photo, at the price of some privacy",
                )
                self.hide = gr.CheckboxGroup(
                    [("Gender", "gender"), ("Age", "age_group")], label="Hide, and draw at random"
                )
                gr.Markdown(OWN_NOISE, elem_classes="quiet")
            self.file = gr.File(visible=False)


class _BlindPage:
    """Four blinded variants and two questions."""

    def __init__(self) -> None:
        with gr.Column(visible=False) as self.group:
            gr.Markdown("## Which one would you post?\nFour strengths in random order.")
            with gr.Row(elem_id="tiles"):
                self.original = _picture("Your photo", "The face in your photo", min_width=240)
                with gr.Column(min_width=280):
                    self.tiles = []
                    for pair in ("AB", "CD"):
                        with gr.Row():
                            self.tiles += [_picture(x, f"Variant {x}", min_width=120) for x in pair]
            self.token = gr.Textbox(visible=False)
            self.best = gr.Radio(list(LETTERS), label="I would post", elem_id="best")
            self.just_right = gr.Radio(
                list(JUST_RIGHT), label="How is it?", visible=False, elem_id="just-right"
            )
            self.consent = gr.Checkbox(label=CONSENT_LABEL, value=False)
            with gr.Accordion("What is kept, for what, for how long", open=False):
                gr.Markdown(CONSENT_TEXT)
            with gr.Row():
                self.done = gr.Button("Show the strengths", variant="primary")
                self.skip = gr.Button("Skip")


def _picture(label: str, alt_text: str, *, min_width: int) -> gr.Image:
    return gr.Image(
        label=label,
        alt_text=alt_text,
        interactive=False,
        type="filepath",
        buttons=[],
        min_width=min_width,
        elem_classes="picture",
    )


def _add_erasure(handlers: Handlers, visit: gr.State) -> None:
    with gr.Accordion("Delete my answers", open=False):
        info = "Leave it empty to delete what was saved in this visit"
        code = gr.Textbox(label="Your code", info=info, max_lines=1, max_length=64)
        erase = gr.Button("Delete my answers", variant="stop")
        outcome = gr.Markdown(elem_id="erased")
    erase.click(handlers.erase, [code, visit], [outcome, code, visit], **_QUICK)


def _wire_photo(
    handlers: Handlers, visit: gr.State, start: _Start, dial: _Dial, blind: _BlindPage
) -> None:
    groups = [start.group, dial.group, blind.group]
    shown = [dial.status, dial.original, dial.variant, dial.strength, dial.privacy]
    opened = [*groups, *shown, dial.keep, dial.hide, dial.outcome, dial.total, visit]
    # Not `input`, which a picture from the camera does not fire.
    reading = start.photo.change(handlers.open_upload, [start.photo, visit], opened, **_SLOW)
    # The file is gone whether it was a photo or not, so the field is emptied.
    for outcome in (reading.success, reading.failure):
        outcome(lambda: None, None, start.photo, show_progress="hidden", **_QUICK)
    start.gallery.select(handlers.open_example, [visit], opened, **_SLOW)
    closed = [*groups, dial.original, dial.variant, dial.outcome, dial.total, visit]
    dial.other.click(handlers.close_photo, [visit], closed, **_QUICK)


def _wire_dial(handlers: Handlers, visit: gr.State, dial: _Dial) -> None:
    shown = [dial.variant, dial.privacy, visit]
    dial.strength.input(handlers.turn, [dial.strength, visit], shown, **_LIVE)
    policy = [dial.keep, dial.hide, dial.strength, visit]
    dial.keep.input(handlers.set_policy, policy, shown, **_LIVE)
    dial.hide.input(handlers.set_policy, policy, shown, **_LIVE)
    making = dial.download.click(
        handlers.download, [dial.strength, visit], [dial.file, dial.total, visit], **_QUICK
    )
    making.success(None, dial.file, None, js=SAVE_FILE)


def _wire_page(handlers: Handlers, visit: gr.State, dial: _Dial, blind: _BlindPage) -> None:
    groups = [dial.group, blind.group]
    questions = [blind.token, blind.best, blind.just_right]
    asked = [*blind.tiles, blind.original, *groups, *questions, blind.consent, dial.outcome, visit]
    dial.find.click(handlers.ask, [visit], asked, scroll_to_output=True, **_QUICK)
    blind.best.input(handlers.choose, [visit], [blind.just_right, visit], **_LIVE)
    shown = [dial.outcome, dial.strength, dial.variant, dial.privacy]
    blind.done.click(
        handlers.answer,
        [*questions, blind.consent, visit],
        [*groups, *shown, blind.token, visit],
        **_QUICK,
    )
    blind.skip.click(handlers.skip, [visit], [*groups, blind.token, visit], **_QUICK)


class ClosedDoors:
    """ASGI middleware that closes what Gradio offers and this page does not use.

    Gradio would fetch any address for a visitor, convert their videos, and write down a session.
    """

    _DOORS = ("/file=http", "/proxy=", "/process_recording", "/deep_link", "/stream/", "/vibe")

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 404 at a closed door; pass all else on."""
        path = scope.get("path", "").lower()
        if scope["type"] == "http" and any(door in path for door in self._DOORS):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)


class NoStore:
    """ASGI middleware that forbids caches to keep what the page serves about a visitor."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on and add the header to the response."""

        async def send_marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *((k, v) for k, v in message["headers"] if k.lower() != b"cache-control"),
                    (b"cache-control", b"no-store"),
                ]
            await send(message)

        is_personal = scope["type"] == "http" and "/gradio_api/" in scope["path"]
        await self._app(scope, receive, send_marked if is_personal else send)


def launch_settings(*, data_dir: Path, host: str, port: int) -> dict[str, Any]:
    """Return how the page is launched: nothing kept, nothing listed, nothing served beyond it."""
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
        "mcp_server": False,
        "share": False,
        "footer_links": ["gradio", "settings"],
        "state_session_capacity": 64,
        "app_kwargs": {"middleware": [(ClosedDoors, (), {}), (NoStore, (), {})]},
        "theme": gr.themes.Soft(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        "css": CSS,
    }


def warm_up(anonymizer: Anonymizer) -> None:
    """Load what is loaded at the first photo, so that the first visitor need not wait for it."""
    blank = np.zeros((SIZE, SIZE, 3), np.uint8)
    anonymizer.find_faces(blank)
    quad = np.array([(0, 0), (SIZE, 0), (SIZE, SIZE), (0, SIZE)], np.float64)
    request = FaceRequest(blank, blank, quad, DEFAULT_STRENGTH, NoiseKey.fresh(), AttributePolicy())
    anonymizer.backend.generate([request])


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
    # Requests run beside each other; several threads for one of them would only get in the way.
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if data_dir.is_relative_to(Path.cwd()):
            raise InvalidArgumentError(
                f"`PRIVACY_DIAL_DATA_DIR` must be outside {Path.cwd()}, whose files the page may "
                f"serve, got {str(data_dir)!r}. Choose another folder."
            )
        keys = load_keys(data_dir, environment=environment)
        sys.stderr.write(f"{keys.notice}\n")
        with (
            RatingStore(data_dir / DATABASE_NAME) as store,
            tempfile.TemporaryDirectory(prefix="privacy-dial-") as cache,
        ):
            environment["GRADIO_TEMP_DIR"] = cache
            backend = EmbeddedBackend.load(model)
            anonymizer = Anonymizer(backend, default_detector())
            threading.Thread(target=warm_up, args=[anonymizer], daemon=True).start()
            page = build_page(
                anonymizer=anonymizer,
                desk=RatingDesk(store=store, keys=keys),
                curve=backend.model.curve,
                examples=sorted((ROOT / "examples").glob("*-a.png"))[:6],
                cache=Path(cache),
            )
            page.queue(max_size=64, default_concurrency_limit=1, api_open=False)
            page.launch(**launch_settings(data_dir=data_dir, host=options.host, port=options.port))
    except (PrivacyDialError, FeedbackError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
