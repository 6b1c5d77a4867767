"""What an error of a provider means, by its status, code, type and parameter: words differ from server to server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from flowrl_core.llm.faults import Fault, one_line

__all__ = ["error_within", "excerpt", "refused"]

_LONGEST_PAUSE_S = 60.0
_LONGEST_EXCERPT = 400
_SERVER = 502

# What errors without a number of HTTP are called, in small letters without _ and -: OpenAI, Anthropic, Google, vLLM,
# Mistral, OpenRouter, LiteLLM.
_STATUS = {
    **dict.fromkeys(("invalidrequesterror", "badrequesterror", "invalidargument", "contextlengthexceeded"), 400),
    **dict.fromkeys(("authenticationerror", "invalidapikey", "unauthenticated"), 401),
    **dict.fromkeys(("insufficientquota", "insufficientcredits", "billingerror", "creditbalancetoolow"), 402),
    **dict.fromkeys(("permissionerror", "permissiondenied"), 403),
    **dict.fromkeys(("notfounderror", "notfound"), 404),
    **dict.fromkeys(("timeout", "timeouterror", "requesttimeout", "deadlineexceeded"), 408),
    **dict.fromkeys(("ratelimiterror", "ratelimitexceeded", "toomanyrequests", "resourceexhausted"), 429),
    **dict.fromkeys(("overloadederror", "overloaded", "unavailable", "serviceunavailable"), 503),
}
_NO_SUCH_MODEL = frozenset({"modelnotfound", "invalidmodel", "modelnotexist", "unknownmodel", "modelnotsupported"})
_NO_CREDIT = frozenset(name for name, status in _STATUS.items() if status == 402)
_BAD_KEY = frozenset({"apikeyinvalid", *(name for name, status in _STATUS.items() if status == 401)})
_FILTERED = frozenset({"contentfilter", "contentpolicyviolation", "responsibleaipolicyviolation"})
_UNWANTED = frozenset(
    {
        "unsupportedvalue",
        "unsupportedparameter",
        "unknownparameter",
        "unrecognizedparameter",
        "extraforbidden",
        # Of a field that is named, without a word on what is wrong with it.
        "",
        "invalidrequesterror",
        "invalidrequest",
        "badrequesterror",
        "badrequest",
    }
)
"""Codes by which a field is refused as such. Others, such as `decimal_above_max_value`, are about its value."""


@dataclass(frozen=True)
class _Error:
    """An error's body.

    Attributes:
        status: a number of HTTP that it holds; 0 if it holds none.
        names: its code and type, in small letters without _ and -; the code first.
        param: the field of the request that it is about; empty if it names none.
    """

    status: int
    names: tuple[str, ...]
    param: str
    message: str


def error_within(body: Any) -> bytes | None:
    """The error that a body of status 200 holds instead of an answer, as a body of its own; None if it holds none."""
    if isinstance(body, list):  # as Google wraps its errors
        return error_within(body[0]) if len(body) == 1 else None
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = body.get("error") or first.get("error")
    if not error and first.get("finish_reason") == "error":
        error = "the provider ended its answer with an error"
    if not error and body.get("object") == "error":
        error = body
    return json.dumps({"error": error}).encode() if error else None


def refused(status: int, headers: Mapping[str, str], content: bytes) -> Fault:
    """What an error means. The body's own status counts, for gateways send others' errors on under theirs."""
    error = _read(content)
    within = f" with an error {error.status or ''.join(error.names[:1])}".rstrip() if status < 300 else ""
    problem = f"the server answered {status}{within}: {error.message or 'nothing more'}"
    status = error.status or _status_of(status, error)
    pause_s = _pause_s(headers.get("retry-after", ""))
    names = frozenset(error.names)
    if 300 <= status < 400 and (elsewhere := headers.get("location")):
        problem = f"the server answered {status}: it redirects to {one_line(elsewhere)}, which is not followed"
    if names & _FILTERED:
        return Fault("refused", problem, was_answered=False)
    if status in (401, 403) or names & _BAD_KEY:
        return Fault("unauthorized", problem, was_answered=False)
    if status == 404 or names & _NO_SUCH_MODEL or error.param == "model":
        return Fault("unknown_model", problem, was_answered=False)
    if status in (402, 429):
        # No wait cures an account without credit.
        is_final = status == 402 or bool(names & _NO_CREDIT)
        return Fault("rate_limited", problem, pause_s=pause_s, is_final=is_final, was_answered=False)
    if status == 408:
        return Fault("timeout", problem, pause_s=pause_s)
    if status >= 500:
        return Fault("server_error", problem, pause_s=pause_s)
    code = error.names[0] if error.names else ""
    field = error.param if status in (400, 422) and code in _UNWANTED else ""
    return Fault("bad_request", problem, was_answered=False, refused_field=field)


def excerpt(content: bytes) -> str:
    """The beginning of a body, in one line."""
    return one_line(content[:_LONGEST_EXCERPT].decode(errors="replace"))


def _status_of(status: int, error: _Error) -> int:
    """The status of an error that holds no number: HTTP's own, but for 200, where the names must do."""
    if status >= 400 or not 200 <= status < 300:
        return status
    return next((_STATUS[name] for name in error.names if name in _STATUS), _SERVER)


def _read(content: bytes) -> _Error:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return _Error(0, (), "", excerpt(content))
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    error = body.get("error") or body if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return _Error(0, (), "", one_line(error) if isinstance(error, str) else excerpt(content))
    message, detail = error.get("message"), error.get("detail")
    if isinstance(message, dict):  # as Mistral wraps what FastAPI says
        detail = message.get("detail")
    if isinstance(detail, list):
        return _validation_error(detail, content)
    code, kind = error.get("code"), error.get("type") or error.get("status")
    message, param = message or detail, error.get("param")
    details = error.get("details")  # Google's
    reasons = [each.get("reason") for each in details if isinstance(each, dict)] if isinstance(details, list) else []
    return _Error(
        _number(code),
        tuple(_bare(name) for name in (code, kind, *reasons) if isinstance(name, str) and not name.isdecimal()),
        _first_name(param) if isinstance(param, str) else "",
        one_line(message) if isinstance(message, str) else excerpt(content),
    )


def _validation_error(details: list[Any], content: bytes) -> _Error:
    """As servers write it that are made with FastAPI."""
    first = details[0] if details and isinstance(details[0], dict) else {}
    place = [part for part in first.get("loc") or () if isinstance(part, str) and part != "body"]
    return _Error(0, (_bare(str(first.get("type", ""))),), _first_name(place[0]) if place else "", excerpt(content))


def _number(code: Any) -> int:
    """The status of HTTP that a code is, as a number or in digits; 0 if it is none."""
    if isinstance(code, bool) or not isinstance(code, int | str):
        return 0
    number = int(code) if isinstance(code, int) or (code.isascii() and code.isdecimal() and len(code) == 3) else 0
    return number if 400 <= number <= 599 else 0


def _bare(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def _first_name(param: str) -> str:
    """The field of the request's body that the parameter is, or lies in: `response_format.json_schema`."""
    found = re.match(r"[A-Za-z_]\w*", param)
    return found[0] if found else ""


def _pause_s(retry_after: str) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, section 10.2.3: a number of seconds, or a date)."""
    retry_after = retry_after.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", retry_after):
        return min(float(retry_after), _LONGEST_PAUSE_S)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    left = (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(left, 0.0), _LONGEST_PAUSE_S)
