"""Someone who has images of digits classified: mostly one at a time, sometimes a page of them."""

from __future__ import annotations

import json
import math
import random
import uuid
from typing import Any

from locust import task
from locust.contrib.fasthttp import FastHttpUser

from benchmarks.digits import bodies
from benchmarks.scenarios.answers import checked, expect, output
from benchmarks.scenarios.arrivals import arrivals

CLASSES = 10
PAGE = 8


class DigitsUser(FastHttpUser):
    """Calls the model `digits` with OIP JSON."""

    weight = 5
    wait_time = arrivals(18)
    images: tuple[list[float], ...] = tuple(
        json.loads(body)["inputs"][0]["data"] for body in bodies(64)
    )

    @task(8)
    def one(self) -> None:
        """One image, the version that the release chooses."""
        self._infer("/v2/models/digits/infer", "digits: one image", 1)

    @task(2)
    def a_page(self) -> None:
        """Several images at once, of a fixed version."""
        self._infer("/v2/models/digits/versions/2/infer", "digits: a page of images", PAGE)

    def _infer(self, path: str, name: str, rows: int) -> None:
        data = [value for image in random.sample(self.images, rows) for value in image]
        request = {
            "id": uuid.uuid4().hex,
            "inputs": [{"name": "x", "shape": [rows, 64], "datatype": "FP32", "data": data}],
        }
        with checked(self, "POST", path, name, request) as answer:
            if answer:
                _check(answer, request["id"], rows)


def _check(answer: dict[str, Any], request_id: object, rows: int) -> None:
    logits = output(answer, "FP32")
    expect(answer["id"] == request_id, f"id is {answer.get('id')!r}")
    expect(logits["shape"] == [rows, CLASSES], f"shape {logits['shape']}")
    expect(len(logits["data"]) == rows * CLASSES, f"{len(logits['data'])} numbers")
    expect(all(map(math.isfinite, logits["data"])), "a number that is not finite")
