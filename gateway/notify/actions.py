"""What a notify plugin answers, checked and made into requests. Pure: nothing is sent and no plugin is called here."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlencode

import msgspec

from gateway.core.errors import Rejected
from gateway.core.outbound import check_headers
from gateway.notify.expressions import Filling, Secrets

ACTIONS: Final = 4
"""Requests of one notification."""
FIELDS: Final = 16
"""Headers, and query parameters, of one request."""
BODY_BYTES: Final = 256 * 1024
"""Body of one request; chat services take 20 KB."""
HEADER_BYTES: Final = 4 * 1024
"""All headers of one request."""
QUERY_BYTES: Final = 4 * 1024
"""All parameters that are added to a URL, as they are before they are quoted."""
URL_CHARS: Final = 16 * 1024
"""A URL with its parameters: twice the longest secret."""
ANSWER_BYTES: Final = BODY_BYTES + 64 * 1024
"""A plugin's answer in MessagePack: a body of the largest size, and everything around it."""
VERDICT_BYTES: Final = 16 * 1024
"""A plugin's verdict in MessagePack: it may quote the reply that it was shown."""
MOST_WAIT_S: Final = 1e9
"""A wait that is longer than this is a mistake of the plugin."""


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One request as data. `url_ref` names the secret that is the URL; `query` is added to it."""

    url_ref: str
    method: Literal["GET", "POST", "PUT"] = "POST"
    query: dict[str, Any] = {}
    headers: dict[str, Any] = {}
    json: Any = msgspec.UNSET
    body: Any = msgspec.UNSET


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the host is asked to do."""

    http: Http


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plugin's answer to `{op: "notify"}`."""

    actions: list[Action]


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plugin's answer to `{op: "judge"}`. With `retry_after_s` a failure may be tried again, not before then."""

    ok: bool
    error: str = ""
    retry_after_s: Annotated[float, msgspec.Meta(ge=0, le=MOST_WAIT_S)] | None = None


class Request(NamedTuple):
    """A request with every secret in place; it must not be shown."""

    method: Literal["GET", "POST", "PUT"]
    url: str
    headers: dict[str, str]
    body: bytes


def requests_of(answer: Any, secrets: Secrets) -> list[Request]:
    """The requests that a plugin asks for. Raises Rejected for an answer that is not one, or over a bound."""
    actions = _typed(answer, Answer).actions
    if not 0 < len(actions) <= ACTIONS:
        raise Rejected(f"the plugin answered {len(actions)} actions; 1 to {ACTIONS} are taken")
    filling = Filling(secrets)
    return [_request(action.http, filling) for action in actions]


def verdict_of(answer: Any) -> Verdict:
    """What a plugin says of a reply. Raises Rejected for an answer that is none."""
    verdict: Verdict = _typed(answer, Verdict)
    return verdict


def _request(http: Http, filling: Filling) -> Request:
    if max(len(http.query), len(http.headers)) > FIELDS:
        raise Rejected(f"the plugin asks for more than {FIELDS} headers or query parameters")
    headers = {name: _text(name, value, filling) for name, value in http.headers.items()}
    body = _body(http, filling)
    if len(body) > BODY_BYTES:
        raise Rejected(f"the plugin asks for a body of more than {BODY_BYTES} bytes")
    if http.json is not msgspec.UNSET and "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = "application/json; charset=utf-8"
    check_headers(headers, HEADER_BYTES)
    query = {name: _text(name, value, filling) for name, value in http.query.items()}
    return Request(http.method, _extended(filling.secrets.value(http.url_ref), query), headers, body)


def _body(http: Http, filling: Filling) -> bytes:
    if http.json is not msgspec.UNSET:
        if http.body is not msgspec.UNSET:
            raise Rejected("the plugin asks for `json` and `body` at once; give one")
        try:
            return msgspec.json.encode(filling.resolve(http.json))
        except (TypeError, ValueError, UnicodeEncodeError) as failure:
            raise Rejected(f"the plugin's `json` is no JSON: {type(failure).__name__}") from None
    body = b"" if http.body is msgspec.UNSET else filling.resolve(http.body)
    if isinstance(body, str):
        return body.encode()
    if not isinstance(body, bytes):
        raise Rejected("the plugin's `body` is neither text nor bytes")
    return body


def _text(name: str, value: Any, filling: Filling) -> str:
    found = filling.resolve(value)
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise Rejected(f"the plugin's value of {name[:40]!r} is neither text nor a whole number")
    return str(found)


def _extended(url: str, query: dict[str, str]) -> str:
    if sum(len(name.encode()) + len(text.encode()) for name, text in query.items()) > QUERY_BYTES:
        raise Rejected(f"the plugin asks for parameters of more than {QUERY_BYTES} bytes")
    if query:
        base = url.partition("#")[0]
        url = f"{base}{'&' if '?' in base else '?'}{urlencode(query)}"
    if len(url) > URL_CHARS:
        raise Rejected(f"the URL with the plugin's parameters has more than {URL_CHARS} characters")
    return url


def _typed(value: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as failure:
        raise Rejected(f"the plugin's answer: {failure}") from failure
