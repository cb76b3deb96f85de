"""Signing in on a Space, and publishing to an account of one's own; knows no page.

A visitor's token is in the signed cookie of their own browser. It is passed through here for the
one call that needs it, and is never written down, kept or said.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privacy_core.errors import InvalidArgumentError
from privacy_core.hub import is_repo_id, publish
from shell.evidence import Publisher
from shell.languages import message

OWN_NAME = "privacy-dial-unlearned"
"""Of the repository, unless the visitor names another."""
SIGN_IN_FIRST = message(
    "You must be signed in to publish to your account. Press the button and try again."
)
SIGNED_IN_INSTEAD = message(
    "this page has no repository of its own. Sign in below to publish to your account, or "
    "download the folder."
)
SIGN_IN, SIGN_OUT = "Sign in with Hugging Face · Anmelden", "Sign out · Abmelden ({})"
"""In both languages, as Gradio goes by what stands on the button."""
SIGN_IN_NOTE = message(
    "Sign in before you start a run, as the page is loaded anew: then its model can be published "
    "to your own account. Your right to write is used for that alone and is not kept here."
)
_OFFERED = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
"""What a Space sets whose header says `hf_oauth: true`."""
_NEEDED = ("authlib", "itsdangerous")
"""What Gradio signs in with; a Space installs them with it."""


@dataclass(frozen=True)
class SignIn:
    """Where a signed-in visitor may publish.

    Attributes:
        endpoint: Of another Hub, None for the Hub itself.
        send: Publishes a folder; see `privacy_core.hub.publish`.
    """

    endpoint: str | None = None
    send: Callable[..., Any] = publish

    def publisher(self, name: str, *, owner: str | None, token: str | None) -> Publisher:
        """Return what publishes to a visitor's account, by their own right.

        Args:
            name: Of the repository.
            owner: Who is signed in, None for nobody.
            token: Theirs.

        Raises:
            InvalidArgumentError: Nobody is signed in, or the name is none.
        """
        if not owner or not token:
            raise InvalidArgumentError(SIGN_IN_FIRST)
        if not is_repo_id(f"{owner}/{name}"):
            raise InvalidArgumentError(
                "`name` must be 1 to 96 letters, digits and ._-, neither - nor . at an end, no -- "
                f"or .., and no .git last, got another. {OWN_NAME!r} is one."
            )

        def publish_own(folder: Path) -> str:
            from huggingface_hub import HfApi  # noqa: PLC0415 - only publishing needs it

            client = HfApi(endpoint=self.endpoint, token=token)
            sent = self.send(folder, repo_id=f"{owner}/{name}", client=client)
            return f"**Published** as {sent.repo_id}, revision {sent.revision[:12]}; it is private."

        return publish_own


def find_sign_in(
    environment: Mapping[str, str],
    *,
    has: Callable[[str], object] = importlib.util.find_spec,
) -> SignIn | None:
    """Return where visitors may publish once they sign in; None where they cannot.

    Args:
        environment: Of a Space, or of any other machine.
        has: Tells whether a package is installed.
    """
    is_offered = environment.get("SYSTEM") == "spaces" and all(map(environment.get, _OFFERED))
    if not is_offered or not all(map(has, _NEEDED)):
        return None
    return SignIn(environment.get("HF_ENDPOINT") or None)
