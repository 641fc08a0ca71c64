"""A transformer with its pooling: rows of token ids in, one vector per row out.

Rows of different lengths are computed in one of two ways. *Padded*, the way of every network: all
are made as long as the longest. *Unpadded*: the rows stand behind one another as if they were one,
each with positions of its own. Everything in a transformer but attention looks at one position at a
time, so attention alone has to know where a row ends; it is computed row by row.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import safetensors
import torch
from torch.nn.functional import normalize as unit_length
from torch.nn.functional import scaled_dot_product_attention

from serve_app.domain.tensor import Array
from serve_app.errors import PredictorError
from serve_app.predictors.packed_linear import Packing

Rows = Sequence[list[int]]
"""Token ids, row by row."""

_UNPADDED = "serve_app_unpadded"
"""The name under which transformers knows `_attention`."""

_TOLERANCE = 1e-4
"""Between ways to compute the same, as a share of the largest number; seen: 1e-6."""

_TRIES = 3


class Encoder:
    """Computes vectors; counts what it computes.

    Args:
        model: an encoder of transformers.
        device: where its weights are.
        pooling: ``mean`` over all tokens, or ``cls`` for the first one.
        normalize: scale each vector to length 1.
    """

    def __init__(self, model: Any, device: torch.device, pooling: str, normalize: bool) -> None:
        self._model = model
        self._device = device
        self._pooling, self._normalize = pooling, normalize
        self._pad = int(model.config.pad_token_id or 0)
        self._padded_attention: str = model.config._attn_implementation
        self._first_position = 0
        self._positions = self._padding = 0
        self.clock = thread_time if device.type == "cpu" else perf_counter
        """To compare computations by. CPU time, as replicas often load while others compute; a
        thread that waits for torch's other threads spins, so theirs shows in it."""

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self._model.config.vocab_size)

    @property
    def longest(self) -> int | None:
        """How many tokens a row may have; None where the network does not say."""
        limit: int | None = getattr(self._model.config, "max_position_embeddings", None)
        return limit

    def take_counts(self) -> tuple[int, int]:
        """Positions computed since the last call, and how many of them were padding."""
        counts = self._positions, self._padding
        self._positions = self._padding = 0
        return counts

    @torch.inference_mode()
    def padded(self, rows: Rows) -> Array:
        """Computes rows together, padded to the longest of them."""
        lengths = list(map(len, rows))
        width = max(lengths)
        ids = np.full((len(rows), width), self._pad, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for position, row in enumerate(rows):
            ids[position, : len(row)] = row
            mask[position, : len(row)] = 1
        self._attend(self._padded_attention)
        self._positions += ids.size
        self._padding += ids.size - sum(lengths)
        weights = self._tensor(mask)
        hidden = self._model(input_ids=self._tensor(ids), attention_mask=weights).last_hidden_state
        return self._array(hidden[:, 0] if self._pooling == "cls" else _mean(hidden, weights))

    @torch.inference_mode()
    def unpadded(self, rows: Rows) -> Array:
        """Computes rows together, without padding; ask `try_unpadded` first."""
        lengths = list(map(len, rows))
        ids = np.concatenate(rows, dtype=np.int64)
        positions = np.concatenate([np.arange(length) for length in lengths])
        self._attend(_UNPADDED)
        self._positions += ids.size
        hidden = self._model(
            input_ids=self._tensor(ids[None]),
            position_ids=self._tensor(positions[None] + self._first_position),
            row_lengths=lengths,
        ).last_hidden_state[0]
        each = torch.split(hidden, lengths)
        cls = self._pooling == "cls"
        return self._array(torch.stack([row[0] if cls else row.mean(0) for row in each]))

    def try_packed(self, longest: int) -> bool:
        """Packs the weights for the CPU's library, and leaves them so where that pays.

        Args:
            longest: tokens that a row may have.
        """
        if self._device.type != "cpu":
            return False
        rows = self._samples(longest)
        expected, plain_s = self._timed(rows)
        packing = None
        try:
            packing = Packing(self._model)
            found, packed_s = self._timed(rows)
        except Exception:  # whatever other versions of torch and other networks make of it
            kept = False
        else:
            kept = packed_s < plain_s and _equal(found, expected)
        if not kept and packing is not None:
            packing.undo()
        return kept

    def try_unpadded(self, longest: int) -> bool:
        """Whether `unpadded` gives the answers of `padded` with this network.

        It is tried with random rows, the longest among them: a network may use no positions, or
        those of another kind, or know nothing of exchangeable attention.

        Args:
            longest: tokens that a row may have.
        """
        rows = self._samples(longest)
        expected = self.padded(rows)
        # RoBERTa and its kin count positions from behind the padding's id.
        for first in (0, self._pad + 1):
            self._first_position = first
            try:
                found = self.unpadded(rows)
            except Exception:  # whatever a network makes of arguments that it does not know
                continue
            if _equal(found, expected):
                return True
        return False

    def _samples(self, longest: int) -> Rows:
        rng = random.Random(longest)
        tokens = [token for token in range(self.vocabulary) if token != self._pad]
        return [rng.choices(tokens, k=min(length, longest)) for length in (3, 17, longest)]

    def _timed(self, rows: Rows) -> tuple[Array, float]:
        """The vectors, and the best time of some tries."""
        times = []
        for _ in range(_TRIES):
            began = self.clock()
            vectors = self.padded(rows)
            times.append(self.clock() - began)
        return vectors, min(times)

    def _attend(self, name: str) -> None:
        if self._model.config._attn_implementation != name:
            self._model.set_attn_implementation(name)

    def _tensor(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    def _array(self, vectors: torch.Tensor) -> Array:
        if self._normalize:
            vectors = unit_length(vectors, dim=1)
        array: Array = vectors.float().cpu().numpy()
        return array


def read_encoder(folder: Path, device: torch.device, pooling: str, normalize: bool) -> Encoder:
    """Loads the transformer: from this folder, safetensors only, no code from the folder.

    Raises:
        PredictorError: the folder does not hold a complete one.
    """
    import transformers  # costs 2 s, so not at import of this module

    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    transformers.AttentionInterface.register(_UNPADDED, _attention)
    try:
        model, report = transformers.AutoModel.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, safetensors.SafetensorError) as exc:
        raise PredictorError(f"the transformer could not be read: {exc}") from exc
    # A pooler that was not trained is not used here; anything else missing would be random.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise PredictorError(f"the weights lack {', '.join(missing[:5])}")
    return Encoder(model.to(device).eval().requires_grad_(False), device, pooling, normalize)


def _attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    row_lengths: list[int],
    scaling: float | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attention within each row, for the one long row that `Encoder.unpadded` makes of all."""
    queries, keys, values = (torch.split(each, row_lengths, 2) for each in (query, key, value))
    rows = [
        scaled_dot_product_attention(q, k, v, scale=scaling)
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(rows, dim=2).transpose(1, 2), None


def _equal(found: Array, expected: Array) -> bool:
    return bool(np.abs(found - expected).max() <= _TOLERANCE * np.abs(expected).max())


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the tokens that are no padding."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
