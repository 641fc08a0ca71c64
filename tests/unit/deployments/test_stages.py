"""Traffic only moves once what is new has stayed healthy."""

from __future__ import annotations

from typing import Any

from deployments.change import settings_of
from deployments.manifest import Document, render
from deployments.stages import stages
from serve_app.config.load import load_config

MOVED = "models.digits.release.candidates=[{version: '3', weight: 100}]"


def document(*overrides: str) -> Document:
    return render(load_config(["model=[digits,minilm]", *overrides]), home="/home", build="b1")


def candidates(found: Document, model: str = "digits") -> Any:
    return settings_of(found)[model]["release"]["candidates"]


def test_the_former_releases_stay_until_all_that_is_new_is_ready() -> None:
    before = document()
    after = document(MOVED, "models.digits.versions.3.timeouts.load_s=99")
    first, last = stages(before, after, renews=True)
    assert last == after
    assert candidates(first) == candidates(before) != candidates(after)
    settings_of(first)["digits"]["release"] = settings_of(after)["digits"]["release"]
    assert first == after


def test_one_document_is_enough_where_nothing_is_new_or_no_traffic_moves() -> None:
    before, moved = document(), document(MOVED)
    restarted = document("models.digits.versions.3.timeouts.load_s=99")
    assert stages(before, moved, renews=False) == [moved]
    assert stages(before, restarted, renews=True) == [restarted]
    assert stages(None, moved, renews=True) == [moved]


def test_a_release_that_the_new_versions_cannot_have_does_not_stay() -> None:
    before = document("models.digits.release.labels={old: '1'}")
    after = document(MOVED, "~models.digits.versions.1")
    assert stages(before, after, renews=True) == [after]
    settings_of(before)["digits"]["release"] = {"shares": {"2": 1.0}}  # another program's
    assert stages(before, document(MOVED), renews=True) == [document(MOVED)]


def test_a_model_that_is_new_has_no_former_release() -> None:
    before = document("~models.minilm")
    after = document(MOVED)
    first, _ = stages(before, after, renews=True)
    assert candidates(first, "minilm") == candidates(after, "minilm")
    assert candidates(first) == candidates(before)
