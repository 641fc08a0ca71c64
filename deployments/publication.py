"""The route table that is in force, and what is new in it for those who have an older one."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from serve_app.domain.routing import EMPTY_TABLE, RouteTable
from serve_app.domain.table_news import TableNews

_REMEMBERED = 1_000


class Publication:
    """The newest table of this process; its revisions grow."""

    def __init__(self) -> None:
        self.table: RouteTable = EMPTY_TABLE
        self._changed: dict[str, int] = {}
        """Model -> the revision that brought its route."""
        self._removed: dict[str, int] = {}
        self._revisions: deque[int] = deque(maxlen=_REMEMBERED)
        """Tables that news can be given for: models that were removed before are forgotten."""

    def replace(self, table: RouteTable, revision: int) -> bool:
        """Puts another table in force, if it is another one.

        Args:
            table: its own revision does not matter.
            revision: what it gets, above all former ones.

        Returns:
            Whether anything has changed.
        """
        before = self.table
        changed = [
            name
            for name, route in table.models.items()
            # Most are the same objects: a comparison takes a hundred times as long.
            if (old := before.models.get(name)) is not route and old != route
        ]
        removed = before.models.keys() - table.models.keys()
        if not changed and not removed and table.ingresses == before.ingresses:
            return False
        self._changed |= dict.fromkeys(changed, revision)
        self._removed |= dict.fromkeys(removed, revision)
        for name in removed:
            del self._changed[name]
        self._revisions.append(revision)
        oldest = self._revisions[0]
        self._removed = {name: at for name, at in self._removed.items() if at > oldest}
        self.table = replace(table, revision=revision)
        return True

    def since(self, revision: int) -> TableNews:
        """What is new for whoever has the table of this revision, or of another process."""
        table = self.table
        if revision not in self._revisions:
            return TableNews(table.revision, True, table.models, (), table.ingresses)
        models = {
            name: route for name, route in table.models.items() if self._changed[name] > revision
        }
        gone = [name for name, at in self._removed.items() if at > revision]
        removed = tuple(name for name in gone if name not in table.models)
        return TableNews(table.revision, False, models, removed, table.ingresses)
