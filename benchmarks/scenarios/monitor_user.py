"""A client library or a monitor that asks what is there and whether it is ready."""

from __future__ import annotations

from locust import task
from locust.contrib.fasthttp import FastHttpUser

from benchmarks.scenarios.answers import checked, expect
from benchmarks.scenarios.arrivals import arrivals


class MonitorUser(FastHttpUser):
    """Reads health and metadata."""

    weight = 1
    wait_time = arrivals(3)

    @task
    def ready(self) -> None:
        """Is the server ready?"""
        with checked(self, "GET", "/v2/health/ready", "ready") as answer:
            if answer:
                expect(answer["ready"] is True, "not ready")

    @task
    def metadata(self) -> None:
        """What does the model take and give?"""
        with checked(self, "GET", "/v2/models/digits", "model metadata") as answer:
            if answer:
                expect(answer["name"] == "digits", f"name {answer['name']!r}")
                expect(answer["inputs"][0]["shape"] == [-1, 64], "another input shape")
                expect("2" in answer["versions"], f"versions {answer['versions']}")

    @task
    def models(self) -> None:
        """Which models are there?"""
        with checked(self, "GET", "/v1/models", "list of models") as answer:
            if answer:
                names = [item["id"] for item in answer["data"]]
                expect("minilm" in names, f"models {names}")
