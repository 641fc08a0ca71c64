"""Checks of answers: an answer that is fast and wrong is a failure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from locust.contrib.fasthttp import FastHttpUser


class WrongAnswer(Exception):
    """The answer is not what was asked for."""


@contextmanager
def checked(
    user: FastHttpUser, method: str, path: str, name: str, body: Any = None
) -> Iterator[dict[str, Any]]:
    """Sends a request and yields the JSON answer; a `WrongAnswer` inside makes it a failure.

    What has failed already yields an empty answer: there is nothing to look at.
    """
    with user.client.request(method, path, name=name, json=body, catch_response=True) as response:
        if response.status_code != 200:
            response.failure(f"status {response.status_code}: {(response.text or '')[:200]}")
            yield {}
            return
        try:
            answer = response.json()
        except ValueError as error:
            response.failure(f"no JSON: {error}")
            answer = {}
        try:
            yield answer
        except (WrongAnswer, ValueError, KeyError, IndexError, TypeError) as error:
            response.failure(f"{type(error).__name__}: {error}")


def expect(true: bool, text: str) -> None:
    """Raises WrongAnswer with this text unless true."""
    if not true:
        raise WrongAnswer(text)


def output(answer: dict[str, Any], datatype: str) -> dict[str, Any]:
    """The first output tensor of this datatype."""
    for tensor in answer["outputs"]:
        if tensor["datatype"] == datatype:
            found: dict[str, Any] = tensor
            return found
    raise WrongAnswer(f"no output of datatype {datatype}")


def expect_unit_length(vector: list[float]) -> None:
    """Raises WrongAnswer unless this is an embedding of length 1."""
    length = math.sqrt(sum(value * value for value in vector))
    expect(abs(length - 1.0) < 1e-3, f"an embedding of length {length:.4f}")
