"""Secrets by name: the config says which environment variable holds one, never what it is."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import ConfigDict, RootModel, field_validator

from serve_app.errors import ConfigError

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_SECRET_WORD = re.compile(
    r"PASSWORD|PASSWD|(?:^|[_-])(?:PASS|PASSPHRASE|SECRETS?|TOKEN|CREDENTIALS?|PRIVATE|PEPPER"
    r"|API_?KEY|ACCESS_?KEY|SIGNATURE|SIG)(?:[_-]|$)",
    re.IGNORECASE,
)
_USER_AND_PASSWORD = re.compile(r"://[^/?#@]*:(?!\d*(?:/|$))[^@]*@")
"""SQLAlchemy reads more as a password than urllib does; a port before a path is none."""


class SecretRef(RootModel[str]):
    """The name of an environment variable that holds a secret."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    @field_validator("root", mode="before")
    @classmethod
    def _is_a_name(cls, value: Any) -> Any:
        # What stands here by mistake may be the secret itself, so the text does not quote it.
        if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
            raise ValueError(
                "must be the name of an environment variable: A to Z, 0 to 9 and _. "
                "The secret itself stands in that variable only."
            )
        return value

    def read(self) -> str:
        """The secret. Read it where it is used, and keep it nowhere.

        Raises:
            ConfigError: the variable is not set, or empty.
        """
        secret = os.environ.get(self.root)
        if not secret:
            raise ConfigError(f"environment variable {self.root} is not set; it holds a secret")
        return secret


def looks_secret(variable: str) -> bool:
    """Whether an environment variable holds a secret, going by its name."""
    return _SECRET_WORD.search(variable) is not None


def without_password(url: str) -> str:
    """Refuses a URL or URI with a password inside, without quoting it."""
    try:
        query = parse_qsl(urlsplit(url).query)
    except ValueError:
        raise ValueError("cannot be read as a URL.") from None
    if _USER_AND_PASSWORD.search(url) or any(looks_secret(key) for key, _ in query):
        raise ValueError(
            "must not hold a password, for everybody who can read the config would see it."
        )
    return url
