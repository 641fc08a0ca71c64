"""How a newer route table reaches those who have an older one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from serve_app.domain.routing import ModelRoute, RouteTable


class TableNews(NamedTuple):
    """What a table has that an older one has not.

    With ten thousand models a whole table takes a second to cross processes, and whoever gets it
    derives everything anew; a replica that comes or goes changes one model.
    """

    revision: int
    whole: bool
    """Whether these are all models; else the others stay as they were."""
    models: Mapping[str, ModelRoute]
    removed: tuple[str, ...]
    ingresses: int

    def applied_to(self, table: RouteTable) -> RouteTable:
        """The newer table, from the one that this was made for."""
        models = self.models
        if not self.whole:
            models = {**table.models, **models}
            for name in self.removed:
                models.pop(name, None)
        return RouteTable(self.revision, models, self.ingresses)
