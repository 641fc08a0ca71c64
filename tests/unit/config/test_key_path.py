from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.config.key_path import assign, depth, locate, lookup, nested, remove, spell, split

TREE: dict[Any, Any] = {"a": {"b.c": {"d": 1}, "l": [{"x": 1}, {"x": 2}]}, "n": None, 2: {"y": 3}}

NAMES = st.text(alphabet="ab.-_ 0", min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("a", ["a"]),
        ("a.b.c", ["a", "b", "c"]),
        ('a."b.c".d', ["a", "b.c", "d"]),
        ("a.'b.c'", ["a", "b.c"]),
        ("a[0].x", ["a", "0", "x"]),
        ("a.[0]", ["a", "0"]),
        ("a[b.c][d]", ["a", "b.c", "d"]),
    ],
)
def test_split(text: str, segments: list[str]) -> None:
    assert split(text) == segments


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a[", "a]", 'a."', 'a""', "a b"])
def test_split_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read as a key"):
        split(text)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_what_is_spelled_is_split_back(names: list[str]) -> None:
    assert split(spell(tuple(names))) == names


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a.b.c.d", ("a", "b.c", "d")),
        ("a.b.new", ("a", "b", "new")),
        ("a.l.1.x", ("a", "l", 1, "x")),
        ("a.l[1].new.er", ("a", "l", 1, "new", "er")),
        ("n.x.y", ("n", "x", "y")),
        ("2.y", ("2", "y")),
    ],
)
def test_locate(text: str, path: tuple[str | int, ...]) -> None:
    assert locate(TREE, split(text)) == path


@pytest.mark.parametrize("text", ["a.l.2", "a.l.x", "a.l.-1", "a.b.c.d.e"])
def test_locate_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a\."):
        locate(TREE, split(text))


def test_spell() -> None:
    assert spell(("a", 1, "b.c", "d")) == 'a[1]."b.c".d'
    assert spell(()) == ""


def test_depth_and_lookup() -> None:
    assert depth(TREE, ("a", "l", 1, "y")) == 3
    assert depth(TREE, ("2", "y")) == 2
    assert depth(nested(("a", 0, "b"), 1), ("a", 0, "b")) == 3
    assert lookup(TREE, ("a", "l", 1, "x")) == 2
    assert lookup(TREE, ("a", "nothing")) is None


def test_assign_merges_mappings_and_replaces_the_rest() -> None:
    tree: dict[Any, Any] = {"a": {"b": 1, "l": [1, {"x": 1}]}, 2: {"y": 3}, "n": None}
    assign(tree, ("a",), {"c": {"d": 2}})
    assign(tree, ("a", "l", 1, "x"), 5)
    assign(tree, ("a", "l", 0), 7)
    assign(tree, ("2", "y"), 4)
    assign(tree, ("n", "m"), 1)
    assert tree == {
        "a": {"b": 1, "l": [7, {"x": 5}], "c": {"d": 2}},
        2: {"y": 4},
        "n": {"m": 1},
    }


def test_remove() -> None:
    tree: dict[Any, Any] = {"a": [{"x": 1}], 2: 1}
    assert remove(tree, ("a", 0, "x"))
    assert remove(tree, ("2",))
    assert not remove(tree, ("a", 0, "x"))
    assert not remove(tree, ())
    assert tree == {"a": [{}]}


@given(st.lists(NAMES, min_size=1, max_size=3), st.integers())
def test_what_is_assigned_is_found(names: list[str], value: int) -> None:
    tree: dict[str, Any] = {}
    assign(tree, tuple(names), value)
    assert lookup(tree, tuple(names)) == value
    assert lookup(tree, locate(tree, names)) == value
