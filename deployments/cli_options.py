"""What several commands of `serve-app` share: arguments, options, and the way to the admin API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.config.home import home_dir
from serve_app.config.root import Config

if TYPE_CHECKING:
    from deployments.admin import AdminClient

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Hydra overrides, such as env=production, model=[digits] or http.port=8080.",
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option("--config-dir", help="A folder with further config files, such as model/my.yaml."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="As in `serve-app status`.")]
OfModel = Annotated[
    str | None, typer.Option("--model", help="Of the releases of this model, not of deployments.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Hydra override, such as cluster.address=..."),
]


def split(arguments: list[str] | None) -> tuple[str | None, list[str]]:
    """The one argument that is no override, if there is one, and the overrides.

    Raises:
        typer.BadParameter: there are more of them.
    """
    given = arguments or []
    plain = [each for each in given if "=" not in each and not each.startswith("~")]
    if len(plain) > 1:
        raise typer.BadParameter(f"one of them, not {', '.join(plain)}")
    return next(iter(plain), None), [each for each in given if each not in plain]


def examples(*commands: str) -> str:
    """The end of a command's help; the backspace keeps click from joining the lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


@contextmanager
def admin(config: Config) -> Iterator[AdminClient]:
    """The admin API of the running cluster."""
    from deployments.admin import AdminClient

    with AdminClient.of(config, home_dir()) as client:
        yield client
