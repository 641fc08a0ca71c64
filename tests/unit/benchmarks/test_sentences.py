"""The sentences are the same each time, and as long as they should be."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import pytest

from benchmarks.sentences import LENGTHS, LONGEST, SHORTEST, body, sentences


@pytest.mark.parametrize("lengths", LENGTHS)
def test_lengths_stay_in_their_limits(lengths: str) -> None:
    counts = [len(text.split()) for text in sentences(4000, lengths)]
    assert min(counts) == SHORTEST
    assert max(counts) == LONGEST


def test_the_distributions_are_what_they_say() -> None:
    uniform = [len(text.split()) for text in sentences(4000, "uniform")]
    skewed = [len(text.split()) for text in sentences(4000, "skewed")]
    assert 58 < statistics.mean(uniform) < 65
    assert 18 < statistics.median(skewed) < 22
    assert statistics.mean(skewed) > statistics.median(skewed)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_equal_seeds_give_equal_sentences(lengths: str) -> None:
    assert sentences(50, lengths) == sentences(50, lengths)
    assert sentences(50, lengths)[:20] == sentences(20, lengths)
    assert sentences(50, lengths) != sentences(50, lengths, seed=8)


def test_another_process_makes_the_same_sentences() -> None:
    code = "from benchmarks.sentences import sentences; print(sentences(3, 'skewed'))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {f"{sentences(3, 'skewed')}\n"}


def test_unknown_lengths_are_an_error() -> None:
    with pytest.raises(KeyError):
        sentences(1, "long")


def test_the_body_is_one_row_of_text() -> None:
    request = json.loads(body('say "ü"', "text"))
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ['say "ü"']}
    assert request == {"inputs": [tensor]}
