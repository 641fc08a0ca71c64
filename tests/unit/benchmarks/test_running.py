"""Baselines: they compute what the product computes, and leave nothing behind."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks import cpu, digits, grpc_calls
from benchmarks.errors import BenchmarkError
from benchmarks.ports import HIGHEST, LOWEST, free_ports
from benchmarks.running import baseline, environment, launched, tail
from benchmarks.servers.digits_mlp import load
from serve_app.examples.digits import Mlp


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mlp, Path]:
    """A network of the product with random weights, and their file."""
    torch.manual_seed(3)
    network = Mlp(hidden=32).eval()
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(network.state_dict(), path)
    return network, path


def expected(network: Mlp, requests: list[bytes]) -> digits.Array:
    rows = [json.loads(request)["inputs"][0]["data"] for request in requests]
    with torch.inference_mode():
        found: digits.Array = network(torch.tensor(rows, dtype=torch.float32)).numpy()
    return found


def test_the_network_is_that_of_the_product(trained: tuple[Mlp, Path]) -> None:
    network, path = trained
    x = torch.rand(5, 64) * 16
    with torch.inference_mode():
        assert torch.equal(load(path)(x), network(x))


def test_a_bare_process_answers_and_is_gone_afterwards(
    trained: tuple[Mlp, Path], tmp_path: Path
) -> None:
    network, path = trained
    requests = digits.bodies(4)
    with baseline("bare", "bare_uvicorn", path, tmp_path, requests[0]) as server:
        found = digits.logits(server.url, requests)
        assert cpu.find([server.pid], "server") == [server.pid]
        assert server.start_s > 0
    digits.check_same("bare", found, expected(network, requests))
    assert server.pid not in cpu.processes()


def test_the_reference_for_large_bodies_reads_and_answers(tmp_path: Path) -> None:
    body = bytes(5_000_000)

    with launched("bare", "bare_body", (), tmp_path, grpc_calls.is_up) as server:
        answer = httpx.post(server.url, content=body, trust_env=False)
        assert answer.json() == {"read": True}
        assert cpu.find([server.pid], "server") == [server.pid]
    assert server.pid not in cpu.processes()


def test_binary_requests_hold_the_same_numbers() -> None:
    for text, data in zip(digits.bodies(4), digits.binary_bodies(4)[0], strict=True):
        row = json.loads(text)["inputs"][0]["data"]
        assert np.frombuffer(data[-256:], "<f4").tolist() == row


def test_another_answer_is_noticed() -> None:
    rows = np.zeros((2, 10), np.float32)
    digits.check_same("same", rows, rows + 1e-5)
    for other in (rows + 0.1, rows[:1]):
        with pytest.raises(BenchmarkError, match="computes something else"):
            digits.check_same("other", other, rows)


def test_a_server_that_does_not_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    missing = tmp_path / "missing.safetensors"
    with (
        pytest.raises(BenchmarkError, match=r"(?s)the server ended with 1.*missing\.safetensors"),
        baseline("bare", "bare_uvicorn", missing, tmp_path, b"{}"),
    ):
        pytest.fail("it cannot serve without weights")


def test_requests_differ_and_are_the_same_each_time() -> None:
    assert digits.bodies(8) == digits.bodies(8)
    assert len(set(digits.bodies(8))) == 8


def test_settings_of_the_caller_do_not_reach_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("SERVE_APP_HOME", "elsewhere")
    found = environment(SERVE_APP_HOME="here")
    assert "RAY_ADDRESS" not in found
    assert found["SERVE_APP_HOME"] == "here"
    assert found["PATH"] == os.environ["PATH"]


def test_free_ports_are_free_and_distinct() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(LOWEST <= port < HIGHEST for port in ports)
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_text("\n".join(map(str, range(100))))
    assert tail(log, 2) == "98\n99"
