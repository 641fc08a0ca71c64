"""Padded and unpadded, with small networks of random weights; MiniLM is in test_real_models.py."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serve_app.predictors.encoder import Encoder, read_encoder
from serve_app.predictors.packed_linear import PackedLinear

LONGEST = 60
SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 70,
}
DISTIL_SIZES = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4}


def encoder(folder: Path, kind: str, pooling: str = "mean", **changes: Any) -> Encoder:
    import transformers

    torch.manual_seed(7)
    sizes = SIZES | (DISTIL_SIZES if kind == "DistilBert" else {}) | changes
    config: Any = getattr(transformers, f"{kind}Config")(**sizes)
    # So large that what a row sees of the others shows in the answer.
    config.initializer_range = 0.5
    model: Any = getattr(transformers, f"{kind}Model")(config)
    model.save_pretrained(folder)
    return read_encoder(folder, torch.device("cpu"), pooling, normalize=True)


def rows(*lengths: int) -> list[list[int]]:
    rng = random.Random(7)
    return [[rng.randint(5, 99) for _ in range(length)] for length in lengths]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert"])
def test_unpadded_answers_are_those_of_padded(tmp_path: Path, kind: str, pooling: str) -> None:
    each = encoder(tmp_path, kind, pooling)
    assert each.try_unpadded(LONGEST)
    given = rows(1, 7, LONGEST, 3, 3)
    np.testing.assert_allclose(each.unpadded(given), each.padded(given), atol=1e-5)
    alone = np.concatenate([each.unpadded([row]) for row in given])
    np.testing.assert_allclose(each.unpadded(given), alone, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("MPNet", {}),  # attention with a bias by distance
        ("Bert", {"is_decoder": True}),
    ],
)
def test_a_network_that_cannot_do_without_is_found_out(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    each = encoder(tmp_path, kind, **changes)
    before = each.padded(rows(3, 9))
    assert not each.try_unpadded(LONGEST)
    np.testing.assert_allclose(each.padded(rows(3, 9)), before, atol=1e-6)


def test_positions_and_padding_are_counted(tmp_path: Path) -> None:
    each = encoder(tmp_path, "Bert")
    each.padded(rows(2, 10, 4))
    assert each.take_counts() == (30, 14)
    each.unpadded(rows(2, 10, 4))
    each.padded(rows(5, 5))
    assert each.take_counts() == (26, 0)
    assert each.take_counts() == (0, 0)


def test_packed_weights_change_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    each = encoder(tmp_path, "Bert")
    before = each.padded(rows(3, 9))
    _time_is(monkeypatch, plain_s=2.0, packed_s=1.0)
    assert each.try_packed(LONGEST)
    assert [type(layer) for layer in _linear(each)] == [PackedLinear] * 13  # 6 per layer, pooler
    np.testing.assert_allclose(each.padded(rows(3, 9)), before, atol=1e-5)
    assert each.try_unpadded(LONGEST)


def test_packed_weights_that_are_slower_are_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = encoder(tmp_path, "Bert")
    _time_is(monkeypatch, plain_s=1.0, packed_s=2.0)
    assert not each.try_packed(LONGEST)
    assert [type(layer) for layer in _linear(each)] == [torch.nn.Linear] * 13


@pytest.mark.parametrize("fault", [RuntimeError("no such operator"), None])
def test_packed_weights_that_do_not_work_are_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    each = encoder(tmp_path, "Bert")
    before = each.padded(rows(3, 9))

    def forward(_: PackedLinear, inputs: torch.Tensor) -> torch.Tensor:
        if fault is not None:
            raise fault
        return inputs * 1.5

    monkeypatch.setattr(PackedLinear, "forward", forward)
    assert not each.try_packed(LONGEST)
    np.testing.assert_array_equal(each.padded(rows(3, 9)), before)


def _linear(each: Encoder) -> list[torch.nn.Module]:
    kinds = (torch.nn.Linear, PackedLinear)
    return [layer for layer in each._model.modules() if isinstance(layer, kinds)]


def _time_is(monkeypatch: pytest.MonkeyPatch, plain_s: float, packed_s: float) -> None:
    timed, times = Encoder._timed, iter([plain_s, packed_s])
    monkeypatch.setattr(Encoder, "_timed", lambda each, rows: (timed(each, rows)[0], next(times)))
