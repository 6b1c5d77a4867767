"""Interpret a provider's error by its status, code, type and parameter: the wording differs between servers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from flowrl_core.llm.error_bodies import ErrorBody, bare, read_error
from flowrl_core.llm.faults import Fault, one_line

__all__ = ["error_within", "refused"]

_LONGEST_PAUSE_S = 60.0
_SERVER = 502

# Names of errors without an HTTP status (see `bare`): OpenAI, Anthropic, Google, vLLM, Mistral, OpenRouter.
_STATUS = {
    **dict.fromkeys(("invalidrequesterror", "badrequesterror", "invalidargument"), 400),
    **dict.fromkeys(("authenticationerror", "invalidapikey", "unauthenticated"), 401),
    **dict.fromkeys(("permissionerror", "permissiondenied"), 403),
    **dict.fromkeys(("notfounderror", "notfound"), 404),
    **dict.fromkeys(("timeout", "timeouterror", "requesttimeout", "deadlineexceeded"), 408),
    **dict.fromkeys(("ratelimiterror", "ratelimitexceeded", "toomanyrequests", "resourceexhausted"), 429),
    **dict.fromkeys(("overloadederror", "overloaded", "unavailable", "serviceunavailable", "overcapacity"), 503),
}
_NO_SUCH_MODEL = frozenset(
    (
        *("modelnotfound", "modelnotfounderror", "invalidmodel", "modelnotexist", "unknownmodel", "modelnotsupported"),
        *("modeldecommissioned", "deploymentnotfound"),
    )
)
_NO_CREDIT = frozenset(
    (
        *("insufficientquota", "insufficientcredits", "insufficientbalance", "insufficientuserquota", "billingerror"),
        *("creditbalancetoolow", "billingnotactive", "billinghardlimitreached", "budgetexceeded", "arrearage"),
        *("exceededcurrentquotaerror", "accountoverdueerror"),
    )
)
_BAD_KEY = frozenset({"apikeyinvalid", *(name for name, status in _STATUS.items() if status == 401)})
_FILTERED = frozenset(
    (
        *("contentfilter", "contentpolicyviolation", "contentpolicyviolationerror", "responsibleaipolicyviolation"),
        *("datainspectionfailed", "moderationblocked"),
    )
)
_QUESTION_TOO_LONG = frozenset(
    (
        *("contextlengthexceeded", "contextwindowexceeded", "contextwindowexceedederror", "exceedcontextsizeerror"),
        *("requesttoolarge", "stringabovemaxlength", "prompttoolong"),
    )
)
_PARAMS_OF_A_LENGTH = frozenset({"input_tokens", "input_text", "prompt_tokens"})  # vLLM's, not request fields
_VAGUE = frozenset(
    (
        *("", "invalidrequesterror", "invalidrequest", "badrequesterror", "badrequest"),
        *("invalidargument", "apierror", "servererror", "unknownerror", "valueerror", "validation", "error"),
    )
)
"""Codes that say only that something is wrong."""
_UNWANTED = _VAGUE | {
    "unsupportedvalue",
    "unsupportedparameter",
    "unsupportedparamserror",
    "unknownparameter",
    "unrecognizedparameter",
    "extraforbidden",
}
"""Codes that refuse a field itself. Others, such as `decimal_above_max_value`, concern its value."""
_LENGTH_IN_WORDS = re.compile(
    r"context (?:length|window|size)|\bn_ctx\b|(?:prompt|input) (?:is )?too long|prompt contains \d+ tokens|"
    r"`inputs` tokens|input token count|model token limit",
    re.IGNORECASE,
)
"""The wording of Ollama, LM Studio, older vLLM, Mistral, Anthropic, Google and TGI, which have no code for it."""

# Conflict, failed dependency, too early, over capacity (Groq), given up: not caused by the request.
_PASSING = frozenset({409, 424, 425, 498, 499})
_ENDED_BY_ERROR = frozenset({"error", "networkerror", "insufficientsystemresource", "abort"})
"""Finish reasons of OpenRouter, Zhipu, DeepSeek and vLLM after an internal error."""


def error_within(body: Any) -> bytes | None:
    """Return the error that a body of status 200 holds instead of an answer, as a body; None if it holds none."""
    if isinstance(body, list):  # as Google wraps its errors
        return error_within(body[0]) if len(body) == 1 else None
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = body.get("error") or first.get("error") or (not choices and body.get("errors"))
    if not error and bare(str(first.get("finish_reason"))) in _ENDED_BY_ERROR:
        error = f"the provider ended its answer by {first['finish_reason']!r}"
    if not error and not choices and (body.get("object") == "error" or read_error(json.dumps(body).encode()).status):
        error = body
    return json.dumps({"error": error}).encode() if error else None


def refused(status: int, headers: Mapping[str, str], content: bytes) -> Fault:
    """Return the meaning of an error. The body's own status counts, since gateways forward errors under their own."""
    error = read_error(content)
    within = f" with an error {error.status or ''.join(error.names[:1])}".rstrip() if status < 300 else ""
    problem = f"the server answered {status}{within}: {error.message or 'nothing more'}"
    answered, status = status, error.status or _status_of(status, error)
    pause_s = _pause_s(headers, error.pause)
    names = frozenset(error.names)
    if 300 <= status < 400 and (elsewhere := headers.get("location")):
        problem = f"the server answered {status}: it redirects to {one_line(elsewhere)}, which is not followed"
    if names & _FILTERED or error.is_moderated:
        return Fault("refused", problem, was_answered=False)
    if 413 in (status, answered) or _is_about_length(status, error):
        return Fault("question_too_long", problem, was_answered=False)
    if answered == 407:
        problem = f"a proxy on the way requires a user and a password, or rejected them: {problem}"
        return Fault("unreachable", problem, is_final=True, was_answered=False)
    if status == 402 or names & _NO_CREDIT:
        # Waiting does not help an account without credit.
        return Fault("rate_limited", problem, is_final=True, was_answered=False)
    if status in (401, 403) or names & _BAD_KEY:
        return Fault("unauthorized", problem, was_answered=False)
    if status == 404 or names & _NO_SUCH_MODEL or error.param == "model":
        return Fault("unknown_model", problem, was_answered=False)
    if status == 429:
        return Fault("rate_limited", problem, pause_s=pause_s, was_answered=False)
    if status == 408:
        return Fault("timeout", problem, pause_s=pause_s)
    if status >= 500 or status in _PASSING:
        return Fault("server_error", problem, pause_s=pause_s)
    field = error.param if status in (400, 422) and error.param_name in _UNWANTED else ""
    return Fault("bad_request", problem, was_answered=False, refused_field=field)


def _is_about_length(status: int, error: ErrorBody) -> bool:
    """Whether the question is too long for the model. The wording counts only if no code gives the cause."""
    if _QUESTION_TOO_LONG & set(error.names) or error.param in _PARAMS_OF_A_LENGTH:
        return True
    is_said = set(error.names) <= _VAGUE and _LENGTH_IN_WORDS.search(error.message)
    return bool(is_said) and status in (400, 422, 500)


def _status_of(status: int, error: ErrorBody) -> int:
    """Return the status of an error without a number: HTTP's own, unless it is 2xx; then the names decide."""
    if status >= 400 or not 200 <= status < 300:
        return status
    return next((_STATUS[name] for name in error.names if name in _STATUS), _SERVER)


def _pause_s(headers: Mapping[str, str], told: str) -> float | None:
    """Return the seconds that the server asks to wait.

    Azure and OpenAI give milliseconds, Google writes `34s` into the body; Retry-After holds a number of seconds or a
    date (RFC 9110, section 10.2.3).
    """
    for text, unit_s in ((headers.get("retry-after-ms", ""), 1e-3), (headers.get("retry-after", ""), 1.0), (told, 1.0)):
        if found := re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*s?\s*", text):
            return min(float(found[1]) * unit_s, _LONGEST_PAUSE_S)
        try:
            until = parsedate_to_datetime(text)
        except ValueError:
            continue
        left = (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        return min(max(left, 0.0), _LONGEST_PAUSE_S)
    return None
