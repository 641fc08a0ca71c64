"""What is new in a table, for those who have an older one."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from deployments.publication import Publication
from serve_app.domain.routing import EMPTY_TABLE, RouteTable
from serve_app.testing import model_route

NAMES = st.sampled_from("abcd")
TABLES = st.builds(
    lambda models, ingresses: RouteTable(
        0,
        {name: model_route(name, replicas={"1": count}) for name, count in models.items()},
        ingresses,
    ),
    st.dictionaries(NAMES, st.integers(0, 2)),
    st.integers(1, 2),
)


@given(st.lists(TABLES, min_size=1, max_size=8), st.data())
def test_whoever_follows_has_the_same_table(tables: list[RouteTable], data: st.DataObject) -> None:
    """However many tables an ingress misses, and with whatever it begins."""
    publication = Publication()
    mine = EMPTY_TABLE
    for number, table in enumerate(tables, start=1):
        publication.replace(table, number * 10)
        if data.draw(st.booleans()):
            news = pickle.loads(pickle.dumps(publication.since(mine.revision)))
            mine = news.applied_to(mine)
            assert mine == publication.table
    mine = publication.since(mine.revision).applied_to(mine)
    assert mine == publication.table
    assert mine.models == tables[-1].models


def test_the_same_table_is_no_news() -> None:
    publication = Publication()
    assert publication.replace(RouteTable(0, {"a": model_route("a")}), 5)
    assert not publication.replace(RouteTable(0, {"a": model_route("a")}), 6)
    assert publication.table.revision == 5
    assert publication.replace(RouteTable(0, {"a": model_route("a")}, ingresses=2), 7)


def test_only_what_has_changed_goes_out_and_the_rest_stays_the_same_object() -> None:
    publication = Publication()
    models = {name: model_route(name) for name in "abc"}
    publication.replace(RouteTable(0, models), 5)
    mine = publication.since(0).applied_to(EMPTY_TABLE)
    publication.replace(RouteTable(0, {**models, "b": model_route("b", replicas={"1": 2})}), 6)
    news = publication.since(5)
    assert (list(news.models), news.whole) == (["b"], False)
    after = news.applied_to(mine)
    assert after.models["a"] is mine.models["a"]
    assert after.models["b"].versions["1"].replicas == 2


def test_who_comes_from_another_router_gets_everything() -> None:
    publication = Publication()
    publication.replace(RouteTable(0, {"a": model_route("a")}), 50)
    for revision in (0, 49, 77):
        assert publication.since(revision).whole


def test_what_was_removed_long_ago_is_forgotten() -> None:
    publication = Publication()
    models = {name: model_route(name) for name in "ab"}
    publication.replace(RouteTable(0, models), 1)
    for revision in range(2, 1_500):
        publication.replace(RouteTable(0, {"a": models["a"]}, revision), revision)
    assert publication._removed == {}
    assert publication.since(2).whole
    assert not publication.since(1_400).whole
