"""Sentences of 3 to 120 words for the embedding model: the same ones for the same seed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

SHORTEST, LONGEST = 3, 120
COUNT = 512
"""How many sentences a measurement sends in turn."""

_WORDS = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had
an they which one you were her all she there would their we him been has when who will more no if
out so said what up its about into than them can only other new some could time these two may then
do first any my now such like our over man me even most made after also did many before must through
back years where much your way well down should because each just those people how too little state
good very make world still own see men work long get here between both life being under never day
same another know while last might us great old year off come since against go came right used take
three house money water morning window letter river garden market engine doctor winter summer paper
question answer language number picture children teacher weather kitchen mountain village station
quickly slowly carefully together yesterday tomorrow perhaps almost already although however instead
measure deliver promise remember understand discover consider describe increase compare collect
"""


def _uniform(rng: random.Random) -> int:
    return rng.randint(SHORTEST, LONGEST)


def _skewed(rng: random.Random) -> int:
    """As in real text: half have up to 20 words, few are long."""
    return min(LONGEST, max(SHORTEST, round(rng.lognormvariate(math.log(20), 0.8))))


WORDS = tuple(_WORDS.split())

LENGTHS: dict[str, Callable[[random.Random], int]] = {"uniform": _uniform, "skewed": _skewed}
"""How the number of words is distributed."""


def sentences(count: int, lengths: str, seed: int = 7) -> list[str]:
    """Random sentences of common English words."""
    rng = random.Random(f"{lengths} {seed}")
    draw = LENGTHS[lengths]
    return [" ".join(rng.choices(WORDS, k=draw(rng))).capitalize() + "." for _ in range(count)]


def body(text: str, tensor: str) -> bytes:
    """The request for the embedding of one sentence."""
    item = {"name": tensor, "shape": [1], "datatype": "BYTES", "data": [text]}
    return json.dumps({"inputs": [item]}, separators=(",", ":")).encode()
