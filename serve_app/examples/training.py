"""Trains the versions of the model `digits` from scikit-learn's data, the same way each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from serve_app.examples import digits

SEED = 7
HELD_OUT = 0.25
EPOCHS = 20
BATCH_ROWS = 64
LEARNING_RATE = 4e-3


class Split(NamedTuple):
    """Images and labels to learn from, and those held out."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]


def load_split() -> Split:
    """Splits scikit-learn's digits; the same quarter is held out each time."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    x, x_test, y, y_test = train_test_split(
        data.data.astype(np.float32),
        data.target.astype(np.int64),
        test_size=HELD_OUT,
        random_state=SEED,
        stratify=data.target,
    )
    return Split(x, y, x_test, y_test)


def train(version: str, split: Split, path: Path) -> float:
    """Trains one version and writes it.

    Args:
        version: 1 (linear), 2 (Mlp) or 3 (Cnn).
        split: from `load_split`.
        path: the file to write.

    Returns:
        The accuracy on the images held out.
    """
    if version == "1":
        return _train_linear(split, path)
    with _one_thread():
        torch.manual_seed(SEED)
        network = digits.Mlp() if version == "2" else digits.Cnn()
        _fit(network, split)
        accuracy = _accuracy(network, split)
    from safetensors.torch import save_file

    # One entry only: safetensors writes several in random order, and no two files would be equal.
    save_file(network.state_dict(), path, {"accuracy": f"{accuracy:.4f}"})
    path.chmod(0o644)
    return accuracy


def _train_linear(split: Split, path: Path) -> float:
    """Logistic regression; its decision function gives logits."""
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    pipeline: Any = make_pipeline(MaxAbsScaler(), LogisticRegression(C=0.3, max_iter=500))
    pipeline.fit(split.x, split.y)
    skops.io.dump(pipeline, path)
    return float(pipeline.score(split.x_test, split.y_test))


def _fit(network: nn.Module, split: Split) -> None:
    x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    shuffle = torch.Generator().manual_seed(SEED)
    network.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=shuffle)
        for start in range(0, len(x), BATCH_ROWS):
            rows = order[start : start + BATCH_ROWS]
            optimizer.zero_grad()
            loss: Any = nn.functional.cross_entropy(network(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
    network.eval()


def _accuracy(network: nn.Module, split: Split) -> float:
    with torch.inference_mode():
        guesses = network(torch.from_numpy(split.x_test)).argmax(1).numpy()
    return float(np.mean(guesses == split.y_test))


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of additions, and with it the last bits, must not depend on the machine's cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
