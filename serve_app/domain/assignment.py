"""Weighted rendezvous hashing: which arm a key belongs to, and whether a key is in a sample.

Each arm scores -weight / log(u), u being a hash of arm and key in (0, 1); the highest score wins.
An arm's share is its weight over the sum of all. Because arms score independently, a key moves
only to an arm whose weight grew, or away from one whose weight shrank. Sources: Thaler and
Ravishankar, "Using name-based mappings to increase hit rates" (1998); the weights by Schindelhauer
and Schomaker, "Weighted distributed hash tables" (2005).
"""

from __future__ import annotations

from hashlib import blake2b
from math import log
from typing import NamedTuple

_MASK = (1 << 53) - 1
_UNIT = 2.0**-53


class Seed(NamedTuple):
    """What makes the hashes of one arm, or of one sample, its own."""

    flip: int
    factor: int


def seed_of(*names: str) -> Seed:
    """The seed of what these names stand for; ("ab", "c") and ("a", "bc") differ."""
    text = "\0".join(names).encode()
    found = blake2b(text, digest_size=16).digest()
    return Seed(int.from_bytes(found[:8], "little"), int.from_bytes(found[8:], "little") | 1)


def key_of(text: str) -> int:
    """64 bits of what is assigned, the same in every process."""
    found = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(found.digest(), "little")


def score(weight: float, seed: Seed, key: int) -> float:
    """How much an arm of this weight, which is above 0, claims a key."""
    return -weight / log(uniform(seed, key))


def uniform(seed: Seed, key: int) -> float:
    """A hash that is evenly spread in (0, 1).

    The key is spread already; what is left to do is to make one hash independent of the other. Both
    halves of a wide product, folded, do that (as wyhash does, by Wang Yi).
    """
    product = (key ^ seed.flip) * seed.factor
    return ((product >> 64 ^ product) & _MASK | 1) * _UNIT
