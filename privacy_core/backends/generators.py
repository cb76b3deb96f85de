"""Generators of torch's random numbers, each from a whole secret key.

`manual_seed` keeps 32 bits of what it is given: so few noises could be tried one by one, and among
the faces of a large data set two would share theirs. Here all 624 words of the generator's state
come from the key. Knows keys and labels; no picture and no model.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from privacy_core.errors import ModelError
from privacy_core.noise import NoiseKey

_N_WORDS = 624
_FIRST_WORD = 24
"""Bytes before the words: the seed, how many words are left, whether it is seeded, the next one."""
_STATE_BYTES = 5056
"""The same, the words with eight bytes each, and a normal number that waits for its turn."""


def generator_of(key: NoiseKey, label: str) -> torch.Generator:
    """Return the generator that belongs to `key` and `label`, always the same and at its start.

    SHAKE-256 of both is the state of a Mersenne Twister (Matsumoto & Nishimura 1998), which is no
    cipher: who knows 624 of its numbers to the bit knows the rest.

    Args:
        key: Of one face.
        label: What the numbers are for.

    Returns:
        A generator of the CPU.

    Raises:
        ModelError: The installed torch holds such a state in another way.
    """
    generator = torch.Generator("cpu").manual_seed(0)  # no number was drawn and none waits
    state = generator.get_state().numpy().copy()
    if state.size != _STATE_BYTES:
        raise ModelError(
            f"The state of torch's generator must have {_STATE_BYTES} bytes, got {state.size} in "
            f"torch {torch.__version__}: the noise of models of the Hub cannot be made from a "
            "whole key. Install the torch that requirements.txt names, or take the embedded "
            "backend."
        )
    stream = hashlib.shake_256(key.material + f"privacy-dial generator {label}".encode())
    words = np.frombuffer(stream.digest(4 * _N_WORDS), dtype="<u4").astype(np.uint64)
    state[_FIRST_WORD : _FIRST_WORD + words.nbytes] = words.view(np.uint8)
    generator.set_state(torch.from_numpy(state))
    return generator
