"""Other servers: installed, started, asked and reported, without installing any of them."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from benchmarks import cpu, digits, run_peers
from benchmarks.errors import BenchmarkError
from benchmarks.measure import Sample
from benchmarks.peers import environments, report, serving
from benchmarks.peers.peer import BENTOML, LITSERVE, OIP, PEERS, Api, Peer, Setup
from benchmarks.running import ROOT, Running
from benchmarks.settings import Settings
from serve_app.examples.digits import Mlp

ROWS = digits.images(3).tolist()
BARE = Peer(
    "bare", "bare", "torch", "benchmarks.servers.bare_uvicorn", OIP, (Setup("the only one"),)
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(Mlp(hidden=32).eval().state_dict(), path)
    return path


# What is known of the peers


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_each_peer_has_pinned_requirements_and_a_module(peer: Peer) -> None:
    lines = (environments.REQUIREMENTS / peer.folder / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
    assert "torch==2.13.0" in pins
    assert any(line.lower().startswith(f"{peer.package}==") for line in pins)
    assert (ROOT / (peer.module.replace(".", "/") + ".py")).exists()
    assert len({setup.name for setup in peer.setups}) == len(peer.setups)


@pytest.mark.parametrize(
    ("api", "answer"),
    [
        (OIP, {"outputs": [{"data": [0.5, 1.5]}]}),
        (LITSERVE, {"output": [0.5, 1.5]}),
        (BENTOML, [[0.5, 1.5]]),
    ],
)
def test_each_api_has_the_row_in_its_body_and_finds_the_logits(api: Api, answer: Any) -> None:
    row = [1.0, 2.25]
    assert b"1.0,2.25" in api.body(row)
    assert isinstance(json.loads(api.body(row)), dict)
    assert api.logits(answer) == [0.5, 1.5]


# Environments


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Requirements and environments of a peer `x` that needs nothing."""
    (tmp_path / "peers" / "x").mkdir(parents=True)
    (tmp_path / "peers" / "x" / "requirements.txt").write_text("# nothing\n")
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path / "peers")
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "var")
    return tmp_path


def test_an_environment_is_made_once_and_again_when_its_requirements_change(folders: Path) -> None:
    told: list[str] = []
    python = environments.prepare("x", told.append)
    assert python.exists()
    assert environments.version(python, "pip")
    assert environments.prepare("x", told.append) == python
    assert len(told) == 1
    (folders / "peers" / "x" / "requirements.txt").write_text("# still nothing\n")
    environments.prepare("x", told.append)
    assert len(told) == 2


def test_what_cannot_be_installed_is_an_error_and_stays_uninstalled(folders: Path) -> None:
    (folders / "peers" / "x" / "requirements.txt").write_text("./no-such-package\n")
    with pytest.raises(BenchmarkError, match=r"(?s)pip.* failed:\n.*no-such-package"):
        environments.prepare("x", print)
    assert not (folders / "var" / "x" / "installed.txt").exists()


# Serving


def test_a_peer_answers_and_is_gone_afterwards(weights: Path) -> None:
    probe = OIP.body(ROWS[0])
    with serving.serving(BARE, BARE.setups[0], Path(sys.executable), weights, probe) as server:
        wanted = serving.expected(weights, ROWS)
        serving.check("bare", server.url, OIP, ROWS, wanted)
        with pytest.raises(BenchmarkError, match="computes something else"):
            serving.check("bare", server.url, OIP, ROWS, wanted + 1)
        with pytest.raises(BenchmarkError, match="bare answers 404"):
            serving.check("bare", server.url, LITSERVE, ROWS, wanted)
    assert server.pid not in cpu.processes()
    assert not server.log.exists()
    with pytest.raises(BenchmarkError, match="does not answer"):
        serving.check("bare", server.url, OIP, ROWS, wanted)


def test_a_peer_that_does_not_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    setup = Setup("wrong", ("--no-such-option",))
    with (
        pytest.raises(BenchmarkError, match=r"(?s)ended with 2.*no-such-option"),
        serving.serving(BARE, setup, Path(sys.executable), tmp_path, b"{}"),
    ):
        pytest.fail("it cannot start")


def test_children_of_a_peer_that_has_died_are_ended(tmp_path: Path) -> None:
    """The module leaves a child behind, says its pid and ends."""
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('child', child.pid)\n"
    )
    starter = tmp_path / "python"
    starter.write_text(f"#!{sys.executable}\n{code}")
    starter.chmod(0o755)
    with (
        pytest.raises(BenchmarkError, match=r"(?s)ended with 0.*child \d+") as caught,
        serving.serving(BARE, BARE.setups[0], starter, tmp_path, b"{}"),
    ):
        pytest.fail("it ends at once")
    child = int(str(caught.value).split()[-1])
    assert child not in cpu.processes()


# The run


class FakeBench(run_peers.Bench):
    """Measures nothing: it takes the requests/s of a server from a table."""

    def __init__(self, settings: Settings, rates: dict[str, float | str]) -> None:
        self.settings, self.rates, self.failed = settings, rates, {}
        self._rows, self._weights = ROWS, Path("weights")
        self.order: list[str] = []

    def ours(self) -> dict[str, run_peers.Contestant]:
        return {"serve-app": run_peers.Contestant(_never, OIP)}

    def _serve(self, peer: Peer, setup: Setup, python: Path) -> Any:
        return setup.name

    def measure(
        self, name: str, contestant: run_peers.Contestant, seconds: float
    ) -> dict[int, Sample]:
        key = contestant.start if isinstance(contestant.start, str) else name
        self.order.append(str(key))
        rate = self.rates[str(key)]
        if isinstance(rate, str):
            raise BenchmarkError(rate)
        return {count: Sample(rate, 1.0, 2.0, 0, {"other": 50.0}) for count in (1, 64)}


@contextmanager
def _never() -> Iterator[Running]:
    raise AssertionError("nothing is started here")
    yield


FAST_AND_SLOW = replace(BARE, name="peer", setups=(Setup("slow"), Setup("fast"), Setup("broken")))


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Where a run is faked, peers need no environments."""
    if "run" in request.node.name:
        monkeypatch.setattr(environments, "prepare", lambda folder, tell: _prepare(folder))
        monkeypatch.setattr(environments, "version", lambda python, package: "1.2.3")


def _prepare(folder: str) -> Path:
    if folder == "uninstallable":
        raise BenchmarkError("pip says no")
    return Path("python")


def bench(rates: dict[str, float | str], repeats: int = 2) -> FakeBench:
    return FakeBench(Settings(1.0, repeats, lambda _: None, connections=(1, 64)), rates)


def test_a_run_keeps_the_best_setup_and_says_which_it_tried() -> None:
    run = bench({"slow": 10.0, "fast": 20.0, "broken": "it broke", "serve-app": 100.0})
    result = run.compare({**run.ours(), **run.peers([FAST_AND_SLOW])})
    assert run.order == ["slow", "fast", "broken", "serve-app", "fast", "fast", "serve-app"]
    chosen = result["setups"]["peer"]
    assert (chosen["setup"], chosen["version"]) == ("fast", "1.2.3")
    assert chosen["trials"] == {
        "slow": {"1": 10.0, "64": 10.0},
        "fast": {"1": 20.0, "64": 20.0},
        "broken": "it broke",
    }
    assert result["servers"]["peer"]["64"]["requests_per_s"]["median"] == 20.0
    assert result["failed"] == {}


def test_a_run_names_who_failed_and_goes_on() -> None:
    peers = [
        replace(BARE, name="a", folder="uninstallable"),
        replace(BARE, name="b", setups=(Setup("broken"), Setup("broken too"))),
        replace(BARE, name="c", setups=(Setup("dies"),)),
        replace(BARE, name="d", setups=(Setup("fast"),)),
    ]
    why: dict[str, float | str] = {"broken": "it broke", "broken too": "so", "dies": "it died"}
    run = bench({**why, "fast": 20.0, "serve-app": 1.0})
    result = run.compare({**run.ours(), **run.peers(peers)})
    assert set(result["failed"]) == {"a", "b", "c"}
    assert result["failed"]["a"] == "pip says no"
    assert "broken too: so" in result["failed"]["b"]
    assert run.order.count("dies") == 1
    assert set(result["servers"]) == {"serve-app", "d"}


# The report


def results() -> dict[str, Any]:
    run = bench({"slow": 10.0, "fast": 20.0, "broken": "no", "dies": "[dead]", "serve-app": 100.0})
    dies = replace(BARE, name="other", setups=(Setup("dies"),))
    return run.compare({**run.ours(), **run.peers([FAST_AND_SLOW, dies])})


def test_a_run_has_a_table_with_ratios_setups_and_failures() -> None:
    console = Console(file=io.StringIO(), width=140)
    report.show(results(), console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "20 (20-20)" in text
    assert "5.0x" in text
    assert "peer 1.2.3: fast" in text
    assert "other failed: [dead]" in text


def test_a_run_is_written_and_drawn(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bench-peers.json"
    report.write_json(path, results())
    stored = json.loads(path.read_text())["peers"]
    assert stored["servers"]["peer"]["1"]["cpu_us"]["median"] == 50.0
    assert stored["failed"] == {"other": "[dead]"}
    assert stored["on"]["cores"] >= 1
    assert report.plot(stored, path.with_suffix(".svg"))
    assert "<svg" in path.with_suffix(".svg").read_text()
    assert not report.plot({"servers": {}}, tmp_path / "none.svg")


# The command line


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, list[str]]]:
    calls: list[tuple[Settings, list[str]]] = []

    def run(settings: Settings, peers: tuple[Peer, ...]) -> dict[str, Any]:
        calls.append((settings, [peer.name for peer in peers]))
        found = results()
        return found if "bentoml" in calls[-1][1] else {**found, "failed": {}}

    monkeypatch.setattr(run_peers, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return calls


def test_the_command_run_takes_options(tmp_path: Path, asked: list[Any]) -> None:
    path = tmp_path / "x.json"
    arguments = ["--peers", "litserve,mlserver", "--seconds", "2.5", "--repeats", "1"]
    assert run_peers.main([*arguments, "--connections", "64,1", "--output", str(path)]) == 0
    settings, peers = asked[0]
    assert peers == ["litserve", "mlserver"]
    assert (settings.seconds, settings.repeats, settings.connections) == (2.5, 1, (1, 64))
    assert path.with_suffix(".svg").exists()


def test_the_command_run_ends_with_1_when_a_peer_failed(tmp_path: Path, asked: list[Any]) -> None:
    path = tmp_path / "x.json"
    assert run_peers.main(["--output", str(path)]) == 1
    assert asked[0][1] == list(PEERS)
    assert json.loads(path.read_text())["peers"]["failed"]


def test_without_wrk_nothing_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: list[Any]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert run_peers.main([]) == 1
    assert "apt-get install wrk" in capsys.readouterr().err
    assert asked == []


@pytest.mark.parametrize(
    "arguments",
    [["--peers", "triton"], ["--seconds", "0"], ["--repeats", "x"], ["--connections", "1,-2"]],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_peers.main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_peers.main(["--help"])
    assert stopped.value.code == 0
    assert "--peers litserve,bentoml" in capsys.readouterr().out


def test_images_are_rows_of_64() -> None:
    assert np.shape(ROWS) == (3, 64)
