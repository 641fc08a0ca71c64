"""The users of Locust, against a server that answers rightly, wrongly, or not at all.

Locust runs in a process of its own: importing it replaces the standard library's sockets.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.scenarios.arrivals import arrivals

ROOT = Path(__file__).parents[3]
UNIT = [1.0] + [0.0] * 383

Answer = Callable[[str, Any], Any]


def right(path: str, request: Any) -> Any:
    """What the cluster would answer."""
    if path.startswith("/v2/models/digits/") and request:
        rows = request["inputs"][0]["shape"][0]
        assert len(request["inputs"][0]["data"]) == 64 * rows
        logits = {"datatype": "FP32", "shape": [rows, 10], "data": [0.5] * 10 * rows}
        return {"id": request["id"], "outputs": [logits]}
    if path == "/v2/models/minilm/infer":
        return {"outputs": [{"datatype": "FP32", "shape": [1, 384], "data": UNIT}]}
    if path == "/v1/embeddings":
        data = [{"index": i, "embedding": UNIT} for i in range(len(request["input"]))]
        return {"data": data, "usage": {"prompt_tokens": 9}}
    return {
        "/v2/health/ready": {"ready": True},
        "/v2/models/digits": {"name": "digits", "inputs": [{"shape": [-1, 64]}], "versions": ["2"]},
        "/v1/models": {"data": [{"id": "minilm"}]},
    }.get(path)


def wrong_shape(path: str, request: Any) -> Any:
    answer = right(path, request)
    if path == "/v2/models/digits/infer":
        answer["outputs"][0]["shape"] = [1, 9]
    return answer


def no_digits(path: str, request: Any) -> Any:
    return None if path == "/v2/models/digits/infer" else right(path, request)


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            found = answer(self.path, json.loads(self.rfile.read(length) or b"null"))
            body = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            return

    with Server(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


def locust(
    host: str, folder: Path, file: str = "locustfile"
) -> tuple[int, set[str], dict[str, str], str]:
    """Returns the exit code, the names of all requests, what failed and why, and the output."""
    command = [sys.executable, "-m", "locust", "-f", f"benchmarks/{file}.py", "--host", host]
    command += ["--headless", "-u", "16", "-r", "16", "-t", "5s", "--csv", str(folder / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    names = {row["Name"] for row in rows(folder / "run_stats.csv")} - {"Aggregated"}
    failed = {row["Name"]: row["Error"] for row in rows(folder / "run_failures.csv")}
    return done.returncode, names, failed, done.stdout + done.stderr


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_right_answers_to_every_kind_of_request(tmp_path: Path) -> None:
    with serving(right) as host:
        code, names, failed, text = locust(host, tmp_path)
    assert (code, failed) == (0, {}), text
    assert names == {
        "digits: one image",
        "digits: a page of images",
        "minilm: one sentence",
        "embeddings: 3 sentences",
        "ready",
        "model metadata",
        "list of models",
    }


def test_spikes_take_the_usual_options(tmp_path: Path) -> None:
    with serving(right) as host:
        code, names, failed, text = locust(host, tmp_path, "locustfile_spikes")
    assert (code, failed) == (0, {}), text
    assert "digits: one image" in names


def test_the_shape_of_spikes() -> None:
    code = "from benchmarks.scenarios.spikes import users_at; print([users_at(s, 5) for s in "
    assert python(code + "(0, 6.9, 7, 9.9, 10, 17.5)])") == "[5, 5, 20, 20, 5, 20]"


def test_arrivals_do_not_wait_for_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(random, "expovariate", lambda per_s: 1 / per_s)
    user, wait = SimpleNamespace(), arrivals(10)
    assert wait(user) == pytest.approx(0.1)
    now = 0.15  # an answer took 50 ms: the next request is due at 0.2
    assert wait(user) == pytest.approx(0.05)
    now = 0.75  # one took 550 ms: those due at 0.3, 0.4, ... leave at once, until it has caught up
    pauses = [wait(user) for _ in range(6)]
    assert pauses[:5] == [0.0] * 5
    assert pauses[5] == pytest.approx(0.05)


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("answer", "reason"), [(wrong_shape, "WrongAnswer: shape [1, 9]"), (no_digits, "status 404")]
)
def test_a_wrong_or_missing_answer_is_a_failure(
    answer: Answer, reason: str, tmp_path: Path
) -> None:
    with serving(answer) as host:
        code, _, failed, text = locust(host, tmp_path)
    assert code == 1, text
    assert set(failed) == {"digits: one image"}
    assert reason in failed["digits: one image"]
