"""What all routes of the admin API read of a request: the body, who acts, what it expects."""

from __future__ import annotations

import re
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from serve_app.config.key_path import spell
from serve_app.config.problem import from_validation
from serve_app.config.root import LOOPBACK
from serve_app.domain.control import Author
from serve_app.errors import InvalidInput, MalformedRequest, RequestError
from serve_app.http.body import parse_json
from serve_app.http.head import check_media_type

Body = TypeVar("Body", bound=BaseModel)

IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag of the revision that the change is meant for: 412 if another is in "
    "force. Without it the change is made whatever is there.",
    "schema": {"type": "string"},
}
ACTOR = {
    "name": "x-actor",
    "in": "header",
    "required": False,
    "description": "Who acts, for the history. A claim: nobody is authenticated yet.",
    "schema": {"type": "string", "maxLength": 255},
}

_ACTOR = b"x-actor"
_ACTOR_PATTERN = re.compile(r"[\x20-\x7e]{1,255}")
_ETAG = re.compile(rb'(?:W/)?"([0-9]{1,18})"')


async def refuse_other_pages(request: Request) -> None:
    """Keeps web pages out that somebody on this machine looks at.

    They reach loopback as well, and a name of theirs may lead there. Nobody is authenticated, but
    a browser says which page a request comes from.

    Raises:
        RequestError: it comes from a page that is not on this machine.
    """
    origin = request.headers.get("origin")
    if origin is None:
        return
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        host = None
    if host not in LOOPBACK:
        raise RequestError("requests of web pages on other hosts are refused here")


GUARDED = [Depends(refuse_other_pages)]


async def read_body(
    request: Request, kind: type[Body], max_depth: int, *, required: bool = True
) -> Body:
    """The body of a request.

    Args:
        request: not yet read.
        kind: what it must be.
        max_depth: levels of nesting that are allowed.
        required: otherwise none is like an empty object.

    Raises:
        UnsupportedMediaType: it is no JSON by its header.
        MalformedRequest: it is no JSON object.
        InvalidInput: it is another one than `kind`.
    """
    check_media_type(dict(request.scope["headers"]))
    body = await request.body()
    document = parse_json(body, max_depth) if body or required else {}
    if type(document) is not dict:
        raise MalformedRequest("the request must be a JSON object")
    try:
        return kind.model_validate(document)
    except ValidationError as exc:
        raise invalid(exc, kind, document) from exc


def invalid(exc: ValidationError, kind: type[BaseModel], given: Any) -> InvalidInput:
    """What is wrong with a value, in our words."""
    first = from_validation(exc, kind, given)[0]
    return InvalidInput(first.text, spell(first.path) or None)


def author_of(request: Request, reason: str) -> Author:
    """Who acts, by his own word, and why."""
    given = dict(request.scope["headers"]).get(_ACTOR, b"").decode("latin-1")
    return Author(actor=given if _ACTOR_PATTERN.fullmatch(given) else "anonymous", reason=reason)


def expected_revision(request: Request) -> int | None:
    """The revision in If-Match; None if there is none, or any will do.

    Raises:
        MalformedRequest: it is no ETag of ours.
    """
    given = dict(request.scope["headers"]).get(b"if-match")
    if given is None or given.strip() == b"*":
        return None
    match = _ETAG.fullmatch(given.strip())
    if match is None:
        raise MalformedRequest('If-Match must be the ETag of a revision, such as "12"', "If-Match")
    return int(match[1])
