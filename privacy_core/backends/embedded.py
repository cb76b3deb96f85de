"""The embedded backend: noise on the code of a face, then diffusion back to a face (design §3).

The one place where face pixels become a release. After `y` is drawn nothing of the face is used.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from privacy_core.backends.base import FaceRequest, GeneratedFace
from privacy_core.diffusion.code import known_mask
from privacy_core.diffusion.denoiser import NULL
from privacy_core.diffusion.kept import (
    KEPT_SHARE,
    coordinates_of,
    keeps,
    kept_coordinates,
    values_drawn,
)
from privacy_core.diffusion.model import EmbeddedModel, load_model
from privacy_core.diffusion.sampler import sample
from privacy_core.diffusion.training import SIGMA_MAX
from privacy_core.errors import ModelError
from privacy_core.faces.output import DigitalSourceType
from privacy_core.noise import BrownianLadder, NoiseKey, standard_normals
from privacy_core.privacy import statement
from privacy_core.schema import ATTRIBUTES, AttributePolicy, PrivacyStatement, StrengthCurve

MODEL_FOLDER = Path(__file__).resolve().parents[2] / "models" / "embedded"
"""The shipped weights."""
HIDDEN_TRUST = 0.25
"""How much of what the surroundings usually say is said where an attribute is hidden: they tell it
too. After the noise, so no strength curve depends on it."""
_PURE = 100
_BATCH = 64
"""Faces generated together: more would only take memory."""
_PARALLEL = 2
"""Batches at once in one process."""


class EmbeddedBackend:
    """The diffusion model that ships with the project.

    Args:
        model: Weights with their strength curve.

    Raises:
        ModelError: The weights are not calibrated.
    """

    name = "embedded"
    zoom = 1
    digital_source_type: DigitalSourceType = "compositeWithTrainedAlgorithmicMedia"

    def __init__(self, model: EmbeddedModel) -> None:
        if model.curve is None:
            raise ModelError(
                "The embedded model has no strength curve. "
                "Run `python -m privacy_core calibrate` on it first."
            )
        self.model = model
        self.revision = model.revision
        self._slots = threading.BoundedSemaphore(_PARALLEL)
        self.curve: StrengthCurve = model.curve

    @classmethod
    def load(cls, folder: Path = MODEL_FOLDER) -> EmbeddedBackend:
        """Load the backend from a model folder."""
        return cls(load_model(folder))

    @cached_property
    def clip_radius(self) -> float:
        """The norm C to which codes are clipped where no attribute policy is given."""
        code = self.model.code
        return float(code.clip_radius(code.policy_factors(AttributePolicy())[None])[0])

    @property
    def _amplitude(self) -> float:
        """A, the length of a kept attribute's coordinate."""
        return KEPT_SHARE * self.clip_radius

    def radius_of(self, policy: AttributePolicy) -> float:
        """Return the largest norm of what is noised under a policy: C and n kept attributes."""
        code = self.model.code
        radius = float(code.clip_radius(code.policy_factors(policy)[None])[0])
        n_kept = int(keeps(self.model.predictor, policy).sum())
        return math.hypot(radius, self._amplitude * math.sqrt(n_kept))

    def noised_part(self, codes: Tensor, likely: Tensor, policy: AttributePolicy) -> Tensor:
        """Return what of faces is noised under a policy, of norm `radius_of` at most.

        Args:
            codes: (n, K), of the pixels in M.
            likely: (n, 5), how likely the model's predictor takes value 1 of each attribute.
            policy: One for all.

        Returns:
            (n, K + 5): the clipped code, and ±A for each kept attribute.
        """
        code = self.model.code
        factors = code.policy_factors(policy)[None]
        mapped = factors * code.without_hidden(codes, policy)
        kept = keeps(self.model.predictor, policy)
        coordinates = coordinates_of(likely, kept.expand(len(codes), -1), self._amplitude)
        return torch.cat([code.clip(mapped, code.clip_radius(factors)), coordinates], 1)

    @cached_property
    def _sigmas(self) -> tuple[float, ...]:
        return tuple(float(sigma) for sigma in self.curve.rung_sigmas())

    @torch.inference_mode()
    def generate(self, requests: Sequence[FaceRequest]) -> list[GeneratedFace]:
        """Return one result per request; requests of one face and key share one noise path."""
        results: list[GeneratedFace] = []
        for start in range(0, len(requests), _BATCH):
            with self._slots:
                results += self._generate_batch(requests[start : start + _BATCH])
        return results

    def _generate_batch(self, requests: Sequence[FaceRequest]) -> list[GeneratedFace]:
        code = self.model.code
        rungs = [self.curve.rung(request.strength) for request in requests]
        factors = torch.stack([code.policy_factors(request.policy) for request in requests])
        keys = [self._face_key(request.key, request.policy) for request in requests]
        sigmas, y, kept = self._noised(self._clipped(requests, factors), rungs, keys)
        # From here on nothing of the face is used but y, with its kept attributes.
        tokens = [
            self._tokens(request.policy, key, row, sigma if rung < _PURE else math.inf)
            for request, key, row, sigma, rung in zip(
                requests, keys, kept.tolist(), sigmas, rungs, strict=True
            )
        ]
        y = y + factors * self._hidden_values(requests, rungs, tokens)
        context = self._context(requests)
        codes = self._generate(y, sigmas, factors, context, tokens)
        frames = self.model.pictures(codes, context).numpy()
        finite = codes.isfinite().all(1).tolist()
        return [
            GeneratedFace(
                frame if is_finite else None,
                rung / 100,
                sigma if rung < _PURE else None,
                self._statement(rung, sigma, request.policy, key),
                rung > 0,
                None if is_finite else "The model gave no usable picture.",
                # Skin around the face tells a hidden attribute too.
                matches_colour=not request.policy.hide,
            )
            for frame, is_finite, rung, sigma, request, key in zip(
                frames, finite, rungs, sigmas, requests, keys, strict=True
            )
        ]

    def _clipped(self, requests: Sequence[FaceRequest], factors: Tensor) -> Tensor:
        """Return (n, K + 5): each face's clipped code, then a number per kept attribute."""
        code, predictor = self.model.code, self.model.predictor
        pixels = torch.from_numpy(np.stack([request.pixels for request in requests]))
        codes = code.encode(pixels)
        codes = torch.cat(
            [code.without_hidden(c[None], r.policy) for c, r in zip(codes, requests, strict=True)]
        )
        kept = torch.stack([keeps(predictor, request.policy) for request in requests])
        return torch.cat(
            [
                code.clip(factors * codes, code.clip_radius(factors)),
                kept_coordinates(predictor, pixels, kept, self._amplitude),
            ],
            1,
        )

    def _face_key(self, key: NoiseKey, policy: AttributePolicy) -> NoiseKey:
        """One key per face, weights, kept and hidden attributes: together they are one code."""
        return key.child(f"{self.revision} {sorted(policy.keep)} {sorted(policy.hide)}")

    def _noised(
        self, clipped: Tensor, rungs: list[int], keys: list[NoiseKey]
    ) -> tuple[list[float], Tensor, Tensor]:
        """Return each row's σ, its y, (n, K), and its kept attributes, (n, 5), noised alike.

        All coordinates lie on their rung of the face's Brownian path.
        """
        ladders: dict[bytes, BrownianLadder] = {}
        sigmas, rows = [], []
        for code, rung, key in zip(clipped, rungs, keys, strict=True):
            if rung == 0:
                sigmas.append(0.0)
                rows.append(code)
                continue
            if key.material not in ladders:
                ladders[key.material] = BrownianLadder(key, self._sigmas, len(code))
            ladder = ladders[key.material]
            if rung == _PURE:
                sigmas.append(SIGMA_MAX)
                rows.append(torch.from_numpy(SIGMA_MAX * ladder.pure()).float())
            else:
                sigmas.append(self._sigmas[rung - 1])
                rows.append((code + torch.tensor(ladder.noise_at(rung - 1))).float())
        y, kept = torch.stack(rows).split([len(rows[0]) - len(ATTRIBUTES), len(ATTRIBUTES)], 1)
        return sigmas, y, kept

    def _hidden_values(
        self, requests: Sequence[FaceRequest], rungs: list[int], tokens: list[list[int]]
    ) -> Tensor:
        """Return (n, K) what shows the drawn values of hidden attributes, read from no face.

        Pure noise holds no code, hence no gap where a value is missing.
        """
        code = self.model.code
        rows = [
            code.hidden_values(request.policy, values) * (rung < _PURE)
            for request, rung, values in zip(requests, rungs, tokens, strict=True)
        ]
        return torch.stack(rows)

    def _generate(
        self,
        y: Tensor,
        sigmas: list[float],
        factors: Tensor,
        context: Tensor,
        tokens: list[list[int]],
    ) -> Tensor:
        """Return (n, K) clean codes: y itself where σ is 0, else the end of the ODE."""
        codes = y / factors
        noisy = torch.tensor([sigma > 0 for sigma in sigmas])
        if bool(noisy.any()):
            codes[noisy] = sample(
                self.model.denoiser,
                y[noisy],
                torch.tensor(sigmas)[noisy],
                factors[noisy],
                context=context[noisy],
                attributes=torch.tensor(tokens)[noisy],
            )
        return codes

    def _context(self, requests: Sequence[FaceRequest]) -> Tensor:
        """Return (n, n_context): what is told of each face's surroundings."""
        frames = torch.from_numpy(np.stack([request.context for request in requests]))
        known = known_mask(np.stack([request.quad for request in requests]))
        trust = torch.tensor([HIDDEN_TRUST if r.policy.hide else 1.0 for r in requests])
        return trust[:, None] * self.model.code.context(frames, known)

    def _tokens(
        self, policy: AttributePolicy, key: NoiseKey, kept: list[float], sigma: float
    ) -> list[int]:
        """Set: the value asked for; hide: a draw from the population; keep: what y says of it."""

        def uniform(name: str) -> float:
            return float(ndtr(standard_normals(key, f"attribute {name}", 1)[0]))

        known = keeps(self.model.predictor, policy).tolist() if sigma > 0 else [False] * len(kept)
        population = self.model.population
        values = {name: ATTRIBUTES[name].index(value) for name, value in policy.set.items()}
        values |= {name: int(uniform(name) < population[name]) for name in policy.hide}
        values |= values_drawn(
            kept,
            sigma=sigma,
            amplitude=self._amplitude,
            population=population,
            uniforms={
                n: uniform(n) for n, is_kept in zip(ATTRIBUTES, known, strict=True) if is_kept
            },
        )
        return [values.get(name, NULL) for name in ATTRIBUTES]

    def _statement(
        self, rung: int, sigma: float, policy: AttributePolicy, key: NoiseKey
    ) -> PrivacyStatement:
        noise = math.inf if rung == _PURE else sigma
        return statement(noise, self.radius_of(policy), secret=key.secret)
