"""Someone who has sentences embedded, by either of the two protocols."""

from __future__ import annotations

import random

from locust import task
from locust.contrib.fasthttp import FastHttpUser

from benchmarks.scenarios.answers import checked, expect, expect_unit_length, output
from benchmarks.scenarios.arrivals import arrivals
from benchmarks.sentences import sentences

DIMENSIONS = 384


class TextUser(FastHttpUser):
    """Calls the model `minilm`."""

    weight = 2
    wait_time = arrivals(3)
    texts = sentences(256, "skewed")

    @task
    def open_inference(self) -> None:
        """One sentence over the Open Inference Protocol."""
        text = random.choice(self.texts)
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
        path, name = "/v2/models/minilm/infer", "minilm: one sentence"
        with checked(self, "POST", path, name, {"inputs": [tensor]}) as answer:
            if answer:
                embedding = output(answer, "FP32")
                expect(embedding["shape"] == [1, DIMENSIONS], f"shape {embedding['shape']}")
                expect_unit_length(embedding["data"])

    @task
    def openai(self) -> None:
        """A few sentences over the OpenAI API."""
        texts = random.sample(self.texts, 3)
        request = {"model": "minilm", "input": texts, "encoding_format": "float"}
        with checked(self, "POST", "/v1/embeddings", "embeddings: 3 sentences", request) as answer:
            if answer:
                order = [item["index"] for item in answer["data"]]
                expect(order == [0, 1, 2], f"indexes {order}")
                expect(answer["usage"]["prompt_tokens"] > 0, "no tokens were counted")
                for item in answer["data"]:
                    expect(len(item["embedding"]) == DIMENSIONS, "an embedding of another length")
                    expect_unit_length(item["embedding"])
