"""The one error table, and the wall: whatever a handler raises leaves as the envelope of the contract."""

from __future__ import annotations

import math
import re
from collections import Counter
from http import HTTPStatus
from typing import Final

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.core import errors
from gateway.core.clock import Clock
from gateway.core.ids import new_id
from gateway.core.metrics import Sample

log = structlog.get_logger(__name__)

REQUEST_ID: Final = web.RequestKey("request_id", str)
_GIVEN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class MalformedBody(errors.GatewayError):
    """The body is not what its content type says."""

    code = "body.malformed"


class UnsupportedType(errors.GatewayError):
    """The body is of a type that no route takes."""

    code = "body.unsupported_type"


class SlowBody(errors.GatewayError):
    """The body did not arrive in time."""

    code = "body.timeout"


STATUS: Final[dict[type[errors.GatewayError], int]] = {
    errors.AuthFailed: 401,
    errors.Forbidden: 403,
    errors.Throttled: 429,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Rejected: 422,
    errors.CodecError: 422,
    errors.NotReady: 503,
    errors.StorageFailed: 503,
    MalformedBody: 400,
    UnsupportedType: 415,
    SlowBody: 408,
}
"""What an error means to an HTTP client; a class that is not here is our fault: 500 without detail."""

HTTP_CODES: Final = {
    400: ("http.bad_request", "the request is malformed"),
    404: ("not_found", "there is no such resource"),
    405: ("http.method_not_allowed", "this resource does not take this method"),
    408: ("body.timeout", "the request did not arrive in time"),
    411: ("http.length_required", "the request needs a length"),
    413: ("body.too_large", "the request body is too large"),
    415: (UnsupportedType.code, "the body must be application/json"),
    417: ("http.expectation_failed", "this expectation is not supported"),
    431: ("http.headers_too_large", "the request head is too large"),
}
"""Stable code and text of what aiohttp itself refuses."""

INTERNAL: Final = ("internal", "the gateway failed on this request; the log has more under the request id")


def status_of(error: errors.GatewayError) -> int:
    """HTTP status of an error, by its nearest class in the table."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def envelope(status: int, code: str, text: str, request_id: str, headers: dict[str, str] | None = None) -> web.Response:
    """Build a failure as the contract has it."""
    failure = {"success": False, "error": text, "code": code, "request_id": request_id}
    return web.Response(
        status=status, body=msgspec.json.encode(failure), content_type="application/json", headers=headers
    )


def answer_to(error: errors.GatewayError, request_id: str) -> web.Response:
    """Build the answer to an error that somebody raised on purpose."""
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request failed", request_id=request_id, exc_info=error)
        return envelope(status, *INTERNAL, request_id)
    headers = {}
    if isinstance(error, errors.Throttled):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
        log.warning("request refused", request_id=request_id, code=error.code, reason=str(error))
    elif status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return envelope(status, error.code, str(error), request_id, headers)


def answer_to_http(refusal: web.HTTPException, request_id: str) -> web.StreamResponse:
    """Restate a refusal of aiohttp's own; a redirect passes."""
    if refusal.status < HTTPStatus.BAD_REQUEST:
        raise refusal
    code, text = HTTP_CODES.get(refusal.status, (f"http.{refusal.status}", refusal.reason))
    headers = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else None
    return envelope(refusal.status, code, text, request_id, headers)


class Wall:
    """Middleware around every handler: gives the request its id, restates failures, counts answers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answers: Counter[tuple[str, str]] = Counter()

    def middleware(self) -> Middleware:
        """Return it in the form that aiohttp takes."""

        @web.middleware
        async def wall(request: web.Request, handler: Handler) -> web.StreamResponse:
            response = await self._answer(request, handler)
            self._answers[request.method if request.method in _METHODS else "other", str(response.status)] += 1
            return response

        return wall

    def samples(self) -> list[Sample]:
        """Answers so far, by method and status."""
        return [
            Sample(
                "gateway_http_requests_total",
                "HTTP requests answered.",
                "counter",
                {"method": method, "status": status},
                count,
            )
            for (method, status), count in self._answers.items()
        ]

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if _GIVEN_ID.fullmatch(given) else new_id(self._clock)
        request[REQUEST_ID] = request_id
        try:
            return await handler(request)
        except web.HTTPException as refusal:
            return answer_to_http(refusal, request_id)
        except errors.GatewayError as error:
            return answer_to(error, request_id)
        except web.RequestPayloadError:
            broken = MalformedBody("the body is cut short, or is not encoded as its headers say")
            response = answer_to(broken, request_id)
            response.force_close()  # nobody knows where it ends
            return response
        except ConnectionError:
            # The client went away while it was being answered: nobody is left to tell.
            raise
        except Exception as failure:  # wall: an unforeseen failure becomes a 500 without detail and a log line
            log.error("request failed", request_id=request_id, method=request.method, exc_info=failure)
            if request.writer.output_size > 0:
                # A stream has begun: the only honest end is a broken connection.
                raise ConnectionResetError("failed after the answer had begun") from failure
            return envelope(500, *INTERNAL, request_id)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
