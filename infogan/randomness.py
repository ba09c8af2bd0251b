"""Randomness that is recomputed, never saved.

Every random draw comes from a generator seeded by what the draw is for and where training stands. So a resumed run
draws what the uninterrupted one would have drawn, no state of a random generator has to be stored, and the number of
processes changes nothing: each rank draws for the global batch and takes its slice.
"""

import hashlib

import torch


def generator(seed: int, purpose: str, position: int = 0) -> torch.Generator:
    """Return a CPU generator that depends on nothing but its arguments.

    `purpose` names the draw ("latents/critic", "init/generator"); `position` is where in the run it happens, in
    images seen. Draws are made on the CPU and moved, so that every device sees the same numbers.
    """
    key = hashlib.blake2b(f"{seed}|{purpose}|{position}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little"))
