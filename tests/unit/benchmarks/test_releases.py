"""What the scenarios about releases compute and configure besides starting clusters."""

from __future__ import annotations

import time

import httpx
import pytest

from benchmarks import run_neighbours, run_rollback, run_split
from benchmarks.cluster import CONFIGS
from benchmarks.run_rollback import BAD, CANARY, GOOD, Answers
from benchmarks.single_requests import SingleRequests
from serve_app.config.load import load_config
from serve_app.telemetry.names import BATCH_ROWS

EXPOSITION = """\
# TYPE serve_app_batch_size histogram
serve_app_batch_size_bucket{model_name="digits",model_version="2",le="1.0"} 4
serve_app_batch_size_count{model_name="digits",model_version="2"} 10
serve_app_batch_size_sum{model_name="digits",model_version="2"} 55.0
serve_app_batch_size_count{model_name="minilm",model_version="2"} 7
serve_app_batch_size_sum{model_name="minilm",model_version="2"} 8
"""


def test_rows_per_batch_of_the_versions_that_computed_in_between() -> None:
    assert BATCH_ROWS.name in EXPOSITION
    before = run_split.read_batches(EXPOSITION)
    assert before == {"2": (10.0, 55.0)}
    after = {"2": (14.0, 75.0), "twin": (2.0, 7.0), "idle": (0.0, 0.0)}
    assert run_split.mean_rows(before, after) == {"2": 5.0, "twin": 3.5}
    assert run_split.mean_rows(after, after) == {}


def test_twins_are_the_same_and_stick_to_their_users() -> None:
    model = load_config(run_split.TWINS, CONFIGS).models["digits"]
    one, capped = model.versions["2"], model.versions["capped"]
    assert model.versions["twin"] == one
    assert model.versions["capped-twin"] == capped
    assert capped.batching.max_rows == run_split.CAP
    same = ("predictor", "artifact", "resources", "replicas")
    assert all(getattr(capped, each) == getattr(one, each) for each in same)
    assert model.release.sticky is not None
    assert model.release.sticky.name == "x-user-id"
    for way in run_split.WAYS.values():
        assert {*way.weights, way.pinned} - {""} <= model.versions.keys()
        assert sum(way.weights.values()) == (0 if way.pinned else 100)


def test_neighbours_differ_in_the_other_model_only() -> None:
    configs = (run_neighbours.ALONE, *run_neighbours.CHANGES.values())
    alone, loaded, replaced = (load_config(each, CONFIGS).models for each in configs)
    assert alone["digits"] == loaded["digits"] == replaced["digits"]
    assert alone.keys() < loaded.keys() == replaced.keys()
    assert loaded["minilm"] != replaced["minilm"]


@pytest.mark.parametrize("step", run_rollback.STEPS)
def test_a_canary_begins_with_its_step_and_lasts_until_it_turns_bad(step: int) -> None:
    model = load_config(["model=[turning]"], CONFIGS).models[f"turning-{step}"]
    assert model.release.weights == {"1": 100, CANARY: 0}
    assert model.release.strategy.plan[0] == step
    assert model.release.strategy.bake_s > run_rollback.GOOD_S + 15
    fails_on = model.versions[CANARY].predictor.arguments["fail_on"]
    assert str(fails_on).encode() in BAD
    assert str(fails_on).encode() not in GOOD
    assert "fail_on" not in model.versions["1"].predictor.arguments


def answer(status: int, version: str) -> httpx.Response:
    return httpx.Response(status, headers={"x-model-version": version})


def test_exposure_is_from_the_first_failure_to_the_last_request_of_the_canary() -> None:
    now, answers = time.monotonic(), Answers()
    answers.note(now - 1, answer(200, "1"))
    assert not answers.seen
    answers.note(now - 1, answer(200, CANARY))
    assert answers.seen
    answers.note(now - 1, answer(500, CANARY))
    answers.note(now + 4, answer(500, CANARY))
    answers.note(now + 3, answer(500, CANARY))
    answers.note(now + 9, answer(200, "1"))
    assert answers.exposed_s == pytest.approx(4.0, abs=0.5)
    assert (answers.failed, answers.errors) == (3, 0)
    answers.note(now, answer(500, "1"))
    answers.note(now, httpx.Response(503))
    assert answers.errors == 2


def test_a_canary_that_gets_nothing_after_its_failure_was_exposed_for_no_time() -> None:
    answers = Answers()
    answers.note(time.monotonic(), answer(500, CANARY))
    assert answers.exposed_s == 0.0


async def test_single_requests_go_on_until_something_happens() -> None:
    sent: list[float] = []
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=request.content))
    async with httpx.AsyncClient(transport=transport) as client:
        load = SingleRequests(client, "http://nowhere/", lambda at, got: sent.append(at))
        await load.run(b"x", rate=200.0, seconds=0.05)
        await load.end()
        assert len(sent) == 10
        await load.run(b"x", 200.0, 60.0, until=lambda: len(sent) >= 15)
        await load.end()
    assert 15 <= len(sent) < 30
    assert sent == sorted(sent)
