"""Weighted rendezvous hashing: which arm a key belongs to, and whether a key is in a sample.

Each arm scores -weight / log(u), u being a hash of arm and key in (0, 1); the highest score wins.
An arm's share is its weight over the sum of all. Because arms score independently, a key moves
only to an arm whose weight grew, or away from one whose weight shrank. Sources: Thaler and
Ravishankar, "Using name-based mappings to increase hit rates" (1998); the weights by Schindelhauer
and Schomaker, "Weighted distributed hash tables" (2005).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from math import inf, log
from typing import TypeVar

_FACTOR = 0xC4CEB9FE1A85EC53
_MASK = (1 << 53) - 1
_UNIT = 2.0**-53

C = TypeVar("C")


def seed_of(*names: str) -> int:
    """64 bits that make the hashes of an arm, or of a sample, its own.

    ("ab", "c") and ("a", "bc") differ.
    """
    return key_of("\0".join(names))


def key_of(text: str) -> int:
    """64 bits of what is assigned, the same in every process."""
    found = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(found.digest(), "little")


def uniform(seed: int, key: int) -> float:
    """A hash that is evenly spread in (0, 1).

    The key is spread already; what is left to do is to make the hashes of one key independent. Both
    halves of a wide product, folded, do that (as in wyhash, by Wang Yi).
    """
    product = (key ^ seed) * _FACTOR
    return ((product >> 64 ^ product) & _MASK | 1) * _UNIT


def winner(arms: Iterable[tuple[int, int, C]], key: int) -> C | None:
    """The arm that a key belongs to.

    Args:
        arms: weight above 0, seed, and what to return.
        key: `key_of` what is assigned.
    """
    highest, best = -inf, None
    for weight, seed, arm in arms:
        # `uniform`, spelled out: this is on the way of every request. The order of log(u) / weight
        # is that of the scores.
        product = (key ^ seed) * _FACTOR
        claim = log(((product >> 64 ^ product) & _MASK | 1) * _UNIT) / weight
        if claim > highest:
            highest, best = claim, arm
    return best
