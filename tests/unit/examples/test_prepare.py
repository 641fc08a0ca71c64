"""The example model digits, trained for real."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from serve_app.config.model import PredictorConfig
from serve_app.domain.inference import InferenceBatch
from serve_app.domain.tensor import TensorSpec
from serve_app.examples import prepare, training
from serve_app.examples.digits import Cnn, Mlp
from serve_app.predictors.host import PredictorHost
from serve_app.predictors.predictor import LoadContext

PREDICTORS = {
    "1": {
        "_target_": "serve_app.predictors.sklearn_model.SklearnModel",
        "method": "decision_function",
    },
    "2": {
        "_target_": "serve_app.predictors.torch_module.TorchModule",
        "network": {"_target_": "serve_app.examples.digits.Mlp"},
    },
    "3": {
        "_target_": "serve_app.predictors.torch_module.TorchModule",
        "network": {"_target_": "serve_app.examples.digits.Cnn"},
    },
}
X = TensorSpec(name="x", datatype="FP32", shape=(-1, 64))
LOGITS = TensorSpec(name="logits", datatype="FP32", shape=(-1, 10))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    prepare.prepare_examples(home, report=lambda _: None)
    return home


@pytest.fixture(scope="module")
def split() -> training.Split:
    return training.load_split()


def test_the_held_out_quarter_is_not_learned_from(split: training.Split) -> None:
    data = load_digits()
    assert len(split.x_test) == 450
    assert len(split.x) + len(split.x_test) == len(data.data)
    together = np.concatenate([split.x, split.x_test])
    assert sorted(map(bytes, together)) == sorted(map(bytes, data.data.astype(np.float32)))
    assert together.max() == 16.0


@pytest.mark.parametrize("version", prepare.FILES)
async def test_each_version_serves_with_its_recorded_accuracy(
    home: Path, split: training.Split, version: str
) -> None:
    path = home / "models" / "digits" / version / prepare.FILES[version]
    host = PredictorHost(f"digits@{version}")
    context = LoadContext(path, "cpu", 1, (X,), (LOGITS,))
    predictor = PredictorConfig.model_validate(PREDICTORS[version])
    host.load(predictor, context, {"x": [[0.0] * 64]})
    rows = len(split.x_test)
    result = await host.run(InferenceBatch({"x": split.x_test}, (rows,), (60.0,), ("test",)))
    guesses = result.outputs["logits"].argmax(axis=1)
    accuracy = float(np.mean(guesses == split.y_test))
    assert accuracy > 0.95
    assert host.describe()["accuracy"] == f"{accuracy:.4f}"
    host.close()


def test_later_versions_are_better(home: Path) -> None:
    found = prepare.prepare_examples(home, report=lambda _: None)
    accuracies = [each.accuracy for each in found]
    assert accuracies == sorted(accuracies)
    assert not any(each.trained for each in found)


def test_a_second_run_touches_nothing_and_imports_nothing_heavy(home: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    code = (
        "import sys\nfrom serve_app.examples.prepare import main\ncode = main()\n"
        "print(sorted({'torch', 'sklearn', 'numpy'} & set(sys.modules)))\nsys.exit(code)"
    )
    command = [sys.executable, "-c", code, "--home", str(home)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    *lines, heavy = run.stdout.splitlines()
    assert heavy == "[]"
    for version, line in zip(prepare.FILES, lines, strict=True):
        assert re.match(rf"digits {version}: accuracy 0\.9\d+, up to date \(.*\)$", line)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == files


@pytest.mark.parametrize("damage", ["weights", "facts", "recipe", "no facts", "junk"])
def test_what_is_damaged_or_out_of_date_is_trained_again(
    home: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "models" / "digits" / "2" / "model.safetensors"
    facts = path.with_name(prepare.FACTS)
    good, digest = path.read_bytes(), json.loads(facts.read_text())["sha256"]
    if damage == "weights":
        path.write_bytes(good[:-1])
    elif damage == "facts":
        facts.write_text("{")
    elif damage == "no facts":
        facts.unlink()
    elif damage == "junk":
        facts.write_text("[]")
    else:
        changed = json.loads(facts.read_text()) | {"recipe": "older"}
        facts.write_text(json.dumps(changed))
    lines: list[str] = []
    found = prepare.prepare_examples(home, report=lines.append)
    assert [each.trained for each in found] == [False, True, False]
    assert "trained in" in lines[1]
    assert path.read_bytes() == good  # the same weights, to the last bit
    assert json.loads(facts.read_text())["sha256"] == digest
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.json", "model.safetensors"]


def test_training_that_fails_leaves_the_old_files(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "models" / "digits" / "2" / "model.safetensors"
    before = path.read_bytes()

    def fail(version: str, split: training.Split, target: Path) -> float:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare_examples(home, force=True, report=lambda _: None)
    assert path.read_bytes() == before
    assert list(home.rglob(".training-*")) == []


def test_the_recipe_follows_sources_and_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepare.recipe_digest()
    assert before == prepare.recipe_digest()
    monkeypatch.setattr(prepare, "installed_version", lambda name: "0")
    assert prepare.recipe_digest() != before


def test_a_home_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert prepare.main(["--home", str(tmp_path / "file")]) == 1
    assert "could not write to" in capsys.readouterr().err


@pytest.mark.parametrize("network", [Mlp, Cnn])
def test_networks_keep_rows_apart(network: type[Mlp] | type[Cnn]) -> None:
    model = network().eval()
    x = torch.rand(5, 64) * 16
    with torch.inference_mode():
        together = model(x)
        alone = torch.cat([model(row[None]) for row in x])
        empty = model(x[:0])
    assert together.shape == (5, 10)
    assert empty.shape == (0, 10)
    torch.testing.assert_close(together, alone)
