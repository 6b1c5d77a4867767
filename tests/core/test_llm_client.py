"""Language models that fail in every way that a server, a network or a model can; what is sent is booked."""

import asyncio
import json

import pytest
from model_questions import GOOD, QUESTION, SECRET, Asked, Idea
from model_server import ModelServer, completion, content_type, cut, drip, fault, hang, raw, say

from flowrl_core.errors import BudgetError, InputError
from flowrl_core.llm.client import connect
from flowrl_core.llm.drafts import draft
from flowrl_core.llm.faults import CODES
from flowrl_core.llm.protocols import tokens_told
from flowrl_core.llm.refusals import refused
from flowrl_core.llm.seam import Question
from flowrl_core.specs.campaign import FrontierSpec, parse_campaign
from flowrl_core.testing import EphemeralJournal, ListBook, ScriptedModel

TOOL_CALL = {"id": "1", "type": "function", "function": {"name": "final_result", "arguments": '{"title": "dig"}'}}


pytestmark = pytest.mark.usefixtures("no_keys")


def test_an_answer_is_checked_and_booked():
    asked = Asked([GOOD], temperature=0.25, max_output_tokens=99)
    assert asked.reply.answer == Idea(title="dig")
    assert (asked.reply.num_sent, asked.reply.malformed, len(asked.reply.keys)) == (1, (), 1)
    assert asked.reply.keys == tuple(asked.journal.entries)
    (request,) = asked.requests
    assert request.path == "/v1/chat/completions"
    assert request.texts == [("system", QUESTION.instructions), ("user", QUESTION.text)]
    assert (request.json["temperature"], request.json["max_tokens"]) == (0.25, 99)
    (booking,) = asked.book.bookings
    assert (booking.outcome, booking.input_tokens, booking.output_tokens) == ("answered", 11, 7)
    assert (booking.input_bound, booking.output_bound) == (int(request.headers["content-length"]), 99)
    assert booking.model == asked.reply.model


# (actions, code, whether it passes, requests, outcomes with the tokens told)
FAULTS = {
    "500": (fault("status", 500), "server_error", True, 3, ("server_error", None, None)),
    "503": (fault("status", 503, body=b"<html>"), "server_error", True, 3, ("server_error", None, None)),
    "429": (fault("status", 429), "rate_limited", True, 3, ("rate_limited", 0, 0)),
    "a long page": (fault("status", 503, body=b"<p>" * 200_000), "server_error", True, 3, ("server_error", None, None)),
    "400": (fault("status", 400), "bad_request", False, 1, ("bad_request", 0, 0)),
    "407": (fault("status", 407, body=b"<html>"), "unreachable", False, 1, ("unreachable", 0, 0)),
    "422": (fault("status", 422), "bad_request", False, 1, ("bad_request", 0, 0)),
    "a redirection": (
        fault("status", 307, headers={"location": "http://127.0.0.1:1/"}),
        "bad_request",
        False,
        1,
        ("bad_request", 0, 0),
    ),
    "401": (fault("status", 401), "unauthorized", False, 1, ("unauthorized", 0, 0)),
    "403": (fault("status", 403), "unauthorized", False, 1, ("unauthorized", 0, 0)),
    "404": (fault("status", 404), "unknown_model", False, 1, ("unknown_model", 0, 0)),
    "a model that is not there": (
        fault("status", 400, body=b'{"error": {"message": "no", "code": "model_not_found"}}'),
        "unknown_model",
        False,
        1,
        ("unknown_model", 0, 0),
    ),
    "no credit": (
        fault("status", 429, body=b'{"error": {"message": "pay", "code": "insufficient_quota"}}'),
        "rate_limited",
        False,
        1,
        ("rate_limited", 0, 0),
    ),
    "a cut body": (cut(), "cut_off", True, 3, ("cut_off", None, None)),
    "another type": (content_type("text/html"), "not_json", False, 3, ("not_json", None, None)),
    "no JSON": (raw(b'{"choices": ['), "not_json", False, 3, ("not_json", None, None)),
    "other JSON": (raw(b'{"answer": 42}'), "not_json", False, 3, ("not_json", None, None)),
    "no body": (raw(b" \n"), "not_json", False, 3, ("not_json", None, None)),
    "no choice": (raw(b'{"choices": []}'), "not_json", False, 3, ("not_json", None, None)),
    "deep JSON": (raw(b"[" * 90_000), "not_json", False, 3, ("not_json", None, None)),
    "half a character": (
        raw(json.dumps(completion("\ud800")).encode()),
        "not_json",
        False,
        3,
        ("not_json", None, None),
    ),
    "a choice of another form": (
        raw(b'{"choices": [{"message": {"content": "x", "tool_calls": 5}}], "usage": "lots"}'),
        "not_json",
        False,
        1,
        ("answered", None, None),
    ),
    "1 MB": (say({"title": "x" * 1_000_000}), "too_long", False, 1, ("too_long", None, None)),
    "no end": (say('{"title": "di', finish_reason="length"), "too_long", False, 1, ("answered", 11, 7)),
    "a refusal": (say(None, refusal="I must not"), "refused", False, 1, ("answered", 11, 7)),
    "a filter": (say(None, finish_reason="content_filter"), "refused", False, 1, ("answered", 11, 7)),
    "no text": (say(None), "empty", False, 3, ("answered", 11, 7)),
    "an empty text": (say(""), "empty", False, 3, ("answered", 11, 7)),
    "invalid JSON": (say('{"title": "dig"'), "malformed", False, 3, ("answered", 11, 7)),
    "another schema": (say({"titel": "dig"}), "malformed", False, 3, ("answered", 11, 7)),
    "a refusing text": (say("I'm sorry, I can't help with that."), "malformed", False, 3, ("answered", 11, 7)),
    "two answers": (say('{"title": "dig"} or {"title": "cut"}'), "malformed", False, 3, ("answered", 11, 7)),
    "an answer within a broken one": (say('{"best": {"title": "dig"}'), "malformed", False, 3, ("answered", 11, 7)),
    "an answer in a list": (say('Here: [{"title": "dig"}]'), "malformed", False, 3, ("answered", 11, 7)),
    "thoughts alone": (say('{"title": "dig"}</think>'), "malformed", False, 3, ("answered", 11, 7)),
    "a wrong answer in words": (say('Here: {"titel": "dig"}'), "malformed", False, 3, ("answered", 11, 7)),
}


def error(content, status=200):
    """An error's body, by default under the status of an answer."""
    return fault("status", status, body=json.dumps(content).encode())


# Errors by their codes, not by their words: "a model" stands in all of them.
WORDS = {"message": "this model is not supported: unknown model, not found"}
NOTHING, BOUND = (0, 0), (None, None)
FAULTS |= {
    f"{name} within 200": (error(body), code, is_passing, num_sent, (code, *tokens))
    for name, body, code, is_passing, num_sent, tokens in [
        ("a gateway's", {"error": {**WORDS, "code": 502}}, "server_error", True, 3, BOUND),
        ("a code in digits", {"error": {**WORDS, "code": "503"}}, "server_error", True, 3, BOUND),
        ("a text", {"error": "overloaded"}, "server_error", True, 3, BOUND),
        ("no code", {"error": WORDS}, "server_error", True, 3, BOUND),
        ("in a list", [{"error": {**WORDS, "code": 503, "status": "UNAVAILABLE"}}], "server_error", True, 3, BOUND),
        ("of the choice", {"choices": [{"error": {**WORDS, "code": 502}}]}, "server_error", True, 3, BOUND),
        ("no choices and", {"choices": None, "error": {**WORDS, "code": 500}}, "server_error", True, 3, BOUND),
        ("too many requests", {"error": {**WORDS, "code": 429}}, "rate_limited", True, 3, NOTHING),
        ("Anthropic's", {"type": "error", "error": {"type": "overloaded_error"}}, "server_error", True, 3, BOUND),
        ("a rate limit", {"error": {**WORDS, "type": "rate_limit_error"}}, "rate_limited", True, 3, NOTHING),
        ("no credit", {"error": {**WORDS, "code": 402}}, "rate_limited", False, 1, NOTHING),
        ("a key", {"error": {**WORDS, "code": "invalid_api_key"}}, "unauthorized", False, 1, NOTHING),
        ("a length", {"error": {**WORDS, "code": "context_length_exceeded"}}, "question_too_long", False, 1, NOTHING),
        ("Cloudflare's", {"success": False, "errors": [{**WORDS, "code": 7003}]}, "server_error", True, 3, BOUND),
        ("no wrapper", {**WORDS, "statusCode": 429}, "rate_limited", True, 3, NOTHING),
        (
            "vLLM's",
            {"object": "error", **WORDS, "type": "BadRequestError", "code": 400},
            "bad_request",
            False,
            1,
            NOTHING,
        ),
        ("a model", {"error": {"message": "no", "param": "model", "code": 400}}, "unknown_model", False, 1, NOTHING),
        ("a filter", {"error": {**WORDS, "code": "content_filter"}}, "refused", False, 1, NOTHING),
    ]
}
FAULTS |= {
    "an end by error": (say(None, finish_reason="error"), "server_error", True, 3, ("server_error", None, None)),
    "words alone": (error({"error": WORDS}, 400), "bad_request", False, 1, ("bad_request", 0, 0)),
    "Google's word for a wrong key": (
        error(
            [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}], 400
        ),
        "unauthorized",
        False,
        1,
        ("unauthorized", 0, 0),
    ),
    **{
        f"{name} of the question": (action, "question_too_long", False, 1, ("question_too_long", 0, 0))
        for name, action in [
            (
                "OpenAI's length",
                error({"error": {**WORDS, "param": "messages", "code": "context_length_exceeded"}}, 400),
            ),
            ("llama.cpp's length", error({"error": {**WORDS, "code": 500, "type": "exceed_context_size_error"}}, 500)),
            ("vLLM's length", error({"error": {**WORDS, "param": "input_tokens", "code": 400}}, 400)),
            ("Anthropic's size", error({"type": "error", "error": {"type": "request_too_large"}}, 413)),
            ("Groq's size", error({"error": {"type": "tokens", "code": "rate_limit_exceeded"}}, 413)),
            ("a proxy's limit", fault("status", 413, body=b"<html>Request Entity Too Large</html>")),
            (
                "length in a gateway's words",
                error(
                    {"error": {"message": "litellm.ContextWindowExceededError: no", "type": None, "code": "400"}}, 400
                ),
            ),
            ("LM Studio's length", error({"error": "n_keep: 13055 >= n_ctx: 4096"}, 400)),
            (
                "room for answer and length",
                error(
                    {
                        "object": "error",
                        "message": "max_tokens is too large: 4096. This model's maximum context length is 1000 tokens",
                        "type": "BadRequestError",
                        "param": "max_tokens",
                        "code": 400,
                    },
                    400,
                ),
            ),
        ]
    },
    **{
        f"no balance ({name})": (action, "rate_limited", False, 1, ("rate_limited", 0, 0))
        for name, action in [
            ("DeepSeek", error({"error": {"type": "unknown_error", "code": "invalid_request_error"}}, 402)),
            ("LiteLLM", error({"error": {**WORDS, "type": "budget_exceeded", "code": "400"}}, 400)),
            ("One API", error({"error": {**WORDS, "code": "insufficient_user_quota"}}, 403)),
        ]
    },
    **{
        f"a filter ({name})": (action, "refused", False, 1, ("refused", 0, 0))
        for name, action in [
            ("Azure", error({"error": {"code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, 400)),
            ("OpenRouter", error({"error": {"code": 403, "metadata": {"flagged_input": "dig"}}}, 403)),
        ]
    },
    **{
        f"{status} ({name})": (error(body, status), "server_error", True, 3, ("server_error", None, None))
        for name, status, body in [
            ("Groq", 498, {"error": {**WORDS, "code": "capacity_exceeded"}}),
            ("Anthropic", 529, {"type": "error", "error": {"type": "overloaded_error"}}),
            ("TGI", 424, {"error": "Request failed during generation", "error_type": "generation"}),
        ]
    },
    "a deployment that is not there": (
        error({"error": {"code": "DeploymentNotFound", "message": "no"}}, 400),
        "unknown_model",
        False,
        1,
        ("unknown_model", 0, 0),
    ),
    "an end without resources": (
        say(None, finish_reason="insufficient_system_resource"),
        "server_error",
        True,
        3,
        ("server_error", None, None),
    ),
    "thoughts without an answer": (say("", reasoning_content="hm"), "empty", False, 3, ("answered", 11, 7)),
    "no end by another name": (say("{", finish_reason="model_length"), "too_long", False, 1, ("answered", 11, 7)),
    "JSON that Groq did not get": (
        error({"error": {**WORDS, "code": "json_validate_failed", "failed_generation": '{"titel": 1}'}}, 400),
        "malformed",
        False,
        3,
        ("answered", None, None),
    ),
    "a call that Groq did not get": (
        error({"error": {**WORDS, "code": "tool_use_failed"}}, 400),
        "empty",
        False,
        3,
        ("answered", None, None),
    ),
    "429 in 400": (error({"error": {"code": 429}}, 400), "rate_limited", True, 3, ("rate_limited", 0, 0)),
    "a value out of range": (
        error({"error": {**WORDS, "param": "temperature", "code": "decimal_above_max_value"}}, 400),
        "bad_request",
        False,
        1,
        ("bad_request", 0, 0),
    ),
    "the messages": (
        error({"error": {**WORDS, "param": "messages[0].role", "code": "unsupported_value"}}, 400),
        "bad_request",
        False,
        1,
        ("bad_request", 0, 0),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_code_and_each_attempt_is_booked(name):
    action, code, is_passing, num_sent, settled = FAULTS[name]
    asked = Asked([action])
    assert asked.code == code in CODES
    assert asked.error.is_passing is is_passing
    assert len(asked.requests) == num_sent
    assert asked.settled == [settled] * num_sent
    assert len(str(asked.error)) < 1_500
    assert asked.error.remedy and "\n" not in asked.error.problem


def changed(place, **fields):
    """An answer of which these fields are other than OpenAI writes them; None: left out."""
    body = completion('{"title": "dig"}')
    within = {"body": body, "choice": body["choices"][0], "message": body["choices"][0]["message"]}[place]
    within.update(fields)
    for name in [name for name, value in fields.items() if value is None]:
        del within[name]
    return json.dumps(body).encode()


WHOLE = changed("body")
# (body, tokens that it tells)
SPELLINGS = {
    "no labels": (changed("body", id=None, object=None, model=None, created=None), (11, 7)),
    "other labels": (changed("body", id=5, object=7, created=1e18, system_fingerprint=3, service_tier={}), (11, 7)),
    "no usage": (changed("body", usage=None), (None, None)),
    "usage in texts": (changed("body", usage={"prompt_tokens": "11", "completion_tokens": "7.0"}), (11, 7)),
    "usage in words": (changed("body", usage={"prompt_tokens": "many", "completion_tokens": []}), (None, None)),
    "another end": (changed("choice", finish_reason="eos", index="first", logprobs=[]), (11, 7)),
    "no end": (changed("choice", finish_reason=None), (11, 7)),
    "an end in numbers": (changed("choice", finish_reason=2), (11, 7)),
    "parts": (changed("message", content=[{"type": "output_text", "text": '{"title":'}, ' "dig"}']), (11, 7)),
    "JSON itself": (changed("message", content={"title": "dig"}), (11, 7)),
    "another role": (changed("message", role="bot", annotations="x", audio="y", reasoning={"a": 1}), (11, 7)),
    "heartbeats": (b": OPENROUTER PROCESSING\r\n\r\n: OPENROUTER PROCESSING\n\n" + WHOLE, (11, 7)),
    "blank lines": (b"\xef\xbb\xbf\n \n\n" + WHOLE, (11, 7)),
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_an_answer_is_one_however_a_server_writes_it(name, kind):
    body, tokens = SPELLINGS[name]
    asked = Asked([content_type(kind, body)])
    assert asked.reply is not None, asked.error
    assert asked.reply.answer == Idea(title="dig") and asked.settled == [("answered", *tokens)]


def test_a_tools_arguments_may_be_json_itself():
    asked = Asked(
        [say(None, tool_calls=[{"function": {"name": "final_result", "arguments": {"title": "dig"}}}])], output="tool"
    )
    assert asked.reply.answer == Idea(title="dig")


def test_an_answer_that_groq_refuses_is_sent_back_like_any_other():
    failed = {"error": {**WORDS, "code": "json_validate_failed", "failed_generation": '{"titel": 1}'}}
    asked = Asked([error(failed, 400), GOOD])
    assert asked.reply.answer == Idea(title="dig") and len(asked.reply.malformed) == 1
    assert ("assistant", '{"titel": 1}') in asked.requests[1].texts


def test_no_server_gets_its_models_thoughts_back():
    asked = Asked([say({"titel": 1}, reasoning_content="hm"), GOOD])
    assert asked.reply is not None and "hm" not in json.dumps(asked.requests[1].json["messages"])


def test_a_gateways_error_is_told_with_that_of_the_server_behind_it():
    inner = json.dumps({"error": {"message": "one image at most", "param": "temperature", "code": "unsupported_value"}})
    outer = {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": inner}}}
    asked = Asked([error(outer, 400)], temperature="")
    assert "Provider returned error: one image at most" in asked.error.problem
    asked = Asked([error(outer, 400), GOOD])
    assert asked.reply is not None and "temperature" not in asked.requests[1].json


def test_a_model_with_more_room_is_asked_what_another_has_no_room_for():
    with ModelServer([error({"error": {**WORDS, "code": "context_length_exceeded"}}, 400)]) as small:
        asked = Asked([GOOD], model=small.model, fallbacks=["server"])
    assert asked.reply.answer == Idea(title="dig") and asked.book.outcomes == ["question_too_long", "answered"]


def test_a_redirection_tells_where_it_leads():
    elsewhere = "http://127.0.0.1:1/v1"
    assert elsewhere in Asked([fault("status", 308, headers={"location": elsewhere})]).error.problem


def test_what_passes_is_waited_for():
    asked = Asked([fault("status", 500), fault("status", 502), GOOD])
    assert asked.reply.answer == Idea(title="dig")
    assert asked.reply.num_sent == 3 and asked.waits == [1.0, 4.0]
    assert asked.book.outcomes == ["server_error", "server_error", "answered"]


@pytest.mark.parametrize(("header", "waits"), [("7", [7.0]), ("1e9", [1.0]), ("3600", [60.0]), ("-3", [1.0])])
def test_a_server_says_how_long_to_wait_within_bounds(header, waits):
    asked = Asked([fault("status", 429, headers={"Retry-After": header}), GOOD])
    assert asked.reply.num_sent == 2 and asked.waits == waits


def test_milliseconds_to_wait_are_read_and_what_a_body_tells():
    assert refused(429, {"retry-after-ms": "1500", "retry-after": "9"}, b"").pause_s == 1.5
    google = {"error": {"code": 429, "details": [{"@type": "google.rpc.QuotaFailure"}, {"retryDelay": "34s"}]}}
    assert refused(429, {}, json.dumps([google]).encode()).pause_s == 34.0


def test_a_date_to_wait_for_is_read():
    assert refused(429, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, b"").pause_s == 0.0
    assert refused(429, {"retry-after": "Wed, 21 Oct 2115 07:28:00 GMT"}, b"").pause_s == 60.0


@pytest.mark.parametrize("action", [hang(), drip(40)], ids=["half open", "slow drip"])
def test_no_server_is_waited_for_longer_than_the_timeout(action):
    asked = Asked([action], timeout_s=0.2)
    assert asked.code == "timeout" and asked.error.is_passing
    assert asked.settled == [("timeout", None, None)] * 3
    assert 0.6 <= asked.seconds < 3


def test_where_nobody_listens_nothing_is_sent_and_nothing_is_spent():
    asked = Asked([GOOD], model="m@http://127.0.0.1:1/v1")
    assert asked.code == "unreachable" and asked.error.is_passing
    assert asked.settled == [("unreachable", 0, 0)] * 3


def test_a_server_without_tls_is_told_at_once():
    with ModelServer([GOOD]) as plain:
        asked = Asked([GOOD], model=plain.model.replace("http:", "https:"))
    assert asked.code == "unreachable" and not asked.error.is_passing and len(asked.settled) == 1
    assert "does not speak TLS" in asked.error.problem


def test_a_malformed_answer_is_sent_back_with_what_is_wrong():
    asked = Asked([say({"title": 3}), GOOD])
    assert asked.reply.answer == Idea(title="dig")
    assert (asked.reply.num_sent, len(asked.reply.keys), len(asked.reply.malformed)) == (2, 2, 1)
    roles, texts = zip(*asked.requests[1].texts, strict=True)
    assert roles == ("system", "user", "assistant", "user")
    assert texts[2] == '{"title": 3}' and texts[3] == asked.reply.malformed[0]
    assert "title" in texts[3] and "valid string" in texts[3]


@pytest.mark.parametrize("retries", [0, 3])
def test_a_malformed_answer_is_sent_back_so_many_times_only(retries):
    asked = Asked([say({"title": 3})], answer_retries=retries)
    assert asked.code == "malformed" and len(asked.requests) == retries + 1
    assert "Input should be a valid string" in asked.error.problem


def test_an_answer_may_come_as_a_tools_arguments():
    call = {"id": "1", "type": "function", "function": {"name": "final_result", "arguments": '{"title": 3}'}}
    good = {**call, "function": {**call["function"], "arguments": '{"title": "dig"}'}}
    asked = Asked([say(None, tool_calls=[call]), say(None, tool_calls=[good])], output="tool")
    assert asked.reply.answer == Idea(title="dig") and len(asked.reply.malformed) == 1
    asked = Asked([say(None, tool_calls=[call])], output="tool", answer_retries=1)
    assert asked.code == "malformed" and "Input should be a valid string" in asked.error.problem


def test_an_answer_may_be_asked_for_in_words():
    asked = Asked([say('```json\n{"title": "dig"}\n```')], output="prompted")
    assert asked.reply.answer == Idea(title="dig")
    assert [role for role, _ in asked.requests[0].texts] == ["system", "user"]


# Dialects


def unwanted(param, code="unsupported_value", **fields):
    return error({"error": {"message": f"{param} is not supported with this model", "param": param, "code": code}}, 400)


FASTAPI = {"detail": [{"type": "extra_forbidden", "loc": ["body", "reasoning_effort"], "msg": "no", "input": "low"}]}
MISTRAL = {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "temperature"]}]}}
# What is refused, the options of the question, and what the second request has instead of it.
UNWANTED = {
    "temperature": (unwanted("temperature"), {}, {"temperature": None, "max_tokens": 4096}),
    "without a code": (unwanted("temperature", None), {}, {"temperature": None}),
    "max_tokens": (
        unwanted("max_tokens", "unsupported_parameter"),
        {"max_output_tokens": 99},
        {"max_tokens": None, "max_completion_tokens": 99},
    ),
    "response_format": (unwanted("response_format.json_schema.strict"), {}, {"response_format": None}),
    "tool_choice": (unwanted("tool_choice"), {"output": "tool"}, {"tool_choice": None}),
    "thinking": (unwanted("reasoning_effort", "unknown_parameter"), {"thinking": "low"}, {"reasoning_effort": None}),
    "extra": (error(FASTAPI, 422), {"extra": ['reasoning_effort="low"']}, {"reasoning_effort": None}),
    "wrapped": (error({**MISTRAL, "type": "invalid_request_error"}, 422), {}, {"temperature": None}),
    "within 200": (error({"error": {"code": 400, "param": "seed"}}), {"extra": ["seed=1"]}, {"seed": None}),
}


@pytest.mark.parametrize("name", UNWANTED)
def test_a_field_that_a_server_does_not_take_is_left_out_once_and_for_all(name, caplog):
    action, options, sent = UNWANTED[name]
    good = say(None, tool_calls=[TOOL_CALL]) if options.get("output") == "tool" else GOOD
    asked = Asked([action, good], **options)
    assert asked.reply.answer == Idea(title="dig") and asked.reply.num_sent == 2 and asked.waits == []
    assert asked.settled == [("bad_request", 0, 0), ("answered", 11, 7)]
    first, second = (request.json for request in asked.requests)
    assert all((second.get(field), field in second) == (value, value is not None) for field, value in sent.items())
    assert any(field in first for field in sent) and "omitted from now on" in caplog.text
    if name == "response_format":
        assert '"maxLength": 40' in second["messages"][0]["content"]


def test_what_a_server_does_not_take_is_remembered_by_other_processes_and_questions():
    journal = EphemeralJournal()
    with ModelServer([unwanted("temperature"), unwanted("max_tokens"), GOOD]) as server:
        for text in ("Propose one.", "Propose two."):
            model = connect(FrontierSpec(model=server.model), book=ListBook(), journal=journal)
            asyncio.run(model.ask(Question("You propose.", text, Idea)))
    assert [sorted({"temperature", "max_tokens"} & set(request.json)) for request in server.requests] == [
        ["max_tokens", "temperature"],
        ["max_tokens"],
        [],
        [],
    ]


def test_a_field_is_left_out_once_and_the_longest_answer_keeps_one_of_its_names():
    asked = Asked([unwanted("temperature")])
    assert asked.code == "bad_request" and len(asked.requests) == 2
    asked = Asked(lambda request, _: unwanted("max_tokens" if "max_tokens" in request else "max_completion_tokens"))
    assert asked.code == "bad_request" and len(asked.requests) == 2
    assert all({"max_tokens", "max_completion_tokens"} & set(request.json) for request in asked.requests)


def test_what_is_unset_is_not_sent_and_what_is_added_is():
    asked = Asked([GOOD], temperature="", thinking="low", extra=['provider={"order": ["x"]}', "seed=1"])
    (request,) = asked.requests
    assert "temperature" not in request.json and request.json["reasoning_effort"] == "low"
    assert request.json["provider"] == {"order": ["x"]} and request.json["seed"] == 1
    (request,) = Asked([GOOD], thinking="off").requests
    assert request.json["reasoning_effort"] == "none"
    (request,) = Asked([GOOD]).requests
    assert not {"reasoning_effort", "thinking"} & set(request.json)


@pytest.mark.parametrize(
    "text",
    [
        'Sure: {"title": "dig"}. Good?',
        '```json\n{"title": "dig"}\n```',
        '<think>{"title": "cut"}? No.</think>\n{"title": "dig"}',
        'A {"title": "cut"} would do.\n</think>\n\nThe set {n} says:\n```\n{"title": "dig"}\n```',
        '<thinking>x</thinking>{"title": "dig"}',
    ],
)
@pytest.mark.parametrize("output", ["native", "prompted"])
def test_what_is_written_around_one_answer_is_dropped(text, output):
    asked = Asked([say(text)], output=output)
    assert asked.reply.answer == Idea(title="dig") and asked.reply.num_sent == 1
    assert "dig" in json.dumps(list(asked.journal.entries.values()))


def test_an_answer_that_comes_in_parts_is_joined():
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": '{"title"'}]
    assert Asked([say([*parts, {"type": "text", "text": ': "dig"}'}])]).reply.answer == Idea(title="dig")


def test_many_braces_are_no_work():
    assert Asked([say('{"a":' * 20_000)], answer_retries=0).seconds < 4


def test_google_takes_no_fields_besides():
    with pytest.raises(InputError, match="frontier.extra"):
        spec = FrontierSpec(model="google:gemini-2.5-pro", extra=["a=1"])
        connect(spec, book=ListBook(), journal=EphemeralJournal())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": "hot"}, "from 0 to 2"),
        ({"temperature": "nan"}, "from 0 to 2"),
        ({"temperature": 10**400}, "from 0 to 2"),
        ({"temperature": True}, "text"),
        ({"extra": ["reasoning_effort=low"]}, 'reasoning_effort="low"'),
        ({"extra": ["a=NaN"]}, "not JSON"),
        ({"extra": ["two words=1"]}, "KEY=JSON"),
        ({"extra": ["max_tokens=1"]}, "set by FlowRL itself"),
        ({"extra": ["Max-Tokens=1"]}, "Set frontier.max_output_tokens"),
        ({"extra": ["stream=true"]}, "Omit it"),
        ({"extra": ['model="x"']}, "Set frontier.model"),
        ({"extra": ["a=1e999"]}, "not JSON"),
        ({"extra": ['a="\\ud800"']}, "a lone surrogate"),
        ({"extra": [f"a={'[' * 900}{']' * 900}"]}, "nested"),
        ({"extra": ['a={"x": 1, "x": 2}']}, "x more than once"),
        ({"extra": ["a=1", "a=2"]}, "more than once"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_its_field(fields, said):
    with pytest.raises(InputError, match=rf"^frontier\.{next(iter(fields))}") as caught:
        parse_campaign(frontier=fields)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f'api_key="{SECRET}"',
        f'Authorization="{SECRET}"',
        f'provider={{"headers": {{"X-Api-Key": "{SECRET}"}}}}',
        f'user="Bearer {SECRET}"',
        f'user=["{SECRET}"]',
        f"user={SECRET}",
        SECRET,
    ],
)
def test_a_secret_is_no_field_and_is_not_repeated(text):
    with pytest.raises(InputError, match="FLOWRL_MODEL_KEY") as caught:
        parse_campaign(frontier={"extra": [text]})
    assert caught.value.field == "frontier.extra, entry 1" and SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ['prompt_cache_key="a"', "stop_token_ids=[1]", 'provider={"order": ["x"]}', "seed=1"])
def test_what_only_sounds_like_a_secret_is_a_field(text):
    assert parse_campaign(frontier={"extra": [text]}).frontier.extra == [text]


def test_a_temperature_that_was_recorded_as_a_number_is_the_same_as_text():
    numbers = [FrontierSpec(temperature=value) for value in (0.7, "0.7", "0.70", "7e-1")]
    assert numbers == [FrontierSpec()] * 4 and FrontierSpec(temperature=1).temperature == "1"


def test_the_next_model_is_asked_where_one_does_not_answer(caplog):
    asked = Asked([GOOD], model="m@http://127.0.0.1:1/v1", fallbacks=["openai:gpt-4o-mini", "server"])
    assert asked.reply.answer == Idea(title="dig")
    assert asked.reply.model.startswith("test-model@") and asked.reply.num_sent == 4
    assert "unreachable" in caplog.text and "asking openai:gpt-4o-mini" in caplog.text
    assert "no_key" in caplog.text and f"asking {asked.reply.model}" in caplog.text


def test_where_no_model_answers_each_reason_is_told():
    asked = Asked([fault("status", 500)], fallbacks=["openai:gpt-4o-mini"])
    assert asked.code == "no_key" and asked.error.is_passing
    assert "[server_error] test-model@" in asked.error.problem and "[no_key] openai:gpt-4o-mini" in asked.error.problem


def test_a_budget_that_is_spent_sends_nothing_and_asks_nobody_else():
    asked = Asked([GOOD], book=ListBook(max_requests=0), fallbacks=["server"])
    assert isinstance(asked.error, BudgetError) and asked.requests == []


def test_the_budget_counts_repetitions():
    asked = Asked([fault("status", 500)], book=ListBook(max_requests=2), fallbacks=["server"])
    assert isinstance(asked.error, BudgetError) and len(asked.requests) == 2
    assert asked.book.outcomes == ["server_error"] * 2


def test_a_request_is_booked_before_it_is_sent():
    book = ListBook()
    seen = []

    def script(_, number):
        seen.append([booking.outcome for booking in book.bookings])
        return fault("status", 500) if number == 0 else GOOD

    assert Asked(script, book=book).reply is not None
    assert seen == [[None], ["server_error", None]]


def test_who_is_cancelled_settles_what_was_booked():
    book = ListBook()

    async def work(server):
        model = connect(FrontierSpec(model=server.model), book=book, journal=EphemeralJournal())
        asking = asyncio.create_task(model.ask(QUESTION))
        while not server.requests:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    with ModelServer([hang()]) as server:
        asyncio.run(work(server))
    assert [(b.outcome, b.input_tokens) for b in book.bookings] == [("cancelled", None)]


def test_many_may_ask_at_once():
    book = ListBook()

    async def work(server):
        model = connect(FrontierSpec(model=server.model), book=book, journal=EphemeralJournal())
        asks = [model.ask(Question("You count.", f"Say {n}.", Idea)) for n in range(8)]
        return await asyncio.gather(*asks)

    with ModelServer(lambda request, _: say({"title": request["messages"][1]["content"]})) as server:
        replies = asyncio.run(work(server))
    assert [reply.answer.title for reply in replies] == [f"Say {n}." for n in range(8)]
    assert book.outcomes == ["answered"] * 8


def test_a_book_that_fails_is_not_taken_for_a_model_that_fails():
    class BrokenBook(ListBook):
        def reserve(self, model, *, input_tokens, output_tokens):
            raise OSError("disk full")

    asked = Asked([GOOD], book=BrokenBook(), fallbacks=["server"])
    assert isinstance(asked.error, OSError) and asked.requests == []


# Drafts and doubles


@pytest.mark.parametrize("output", ["native", "tool", "prompted"])
def test_a_draft_is_what_is_sent(output):
    asked = Asked([fault("status", 400)], output=output)
    (request,) = asked.requests
    spec = FrontierSpec(model=f"test-model@{'http://127.0.0.1:1/v1'}", output=output)

    async def within_a_loop():
        return draft(QUESTION, spec)

    made = asyncio.run(within_a_loop())
    assert list(made.messages) == request.texts
    assert made.input_tokens == asked.book.bookings[0].input_bound
    assert ("title" in made.schema.get("properties", {})) is (output != "prompted")
    assert output != "prompted" or '"maxLength"' in made.messages[0][1]


def test_a_draft_needs_no_key_and_no_extra():
    assert draft(QUESTION, FrontierSpec(model="anthropic:claude-opus-5")).messages[1] == ("user", QUESTION.text)


@pytest.mark.parametrize(
    ("provider", "body", "tokens"),
    [
        ("openai", {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}, (3, 4)),
        ("compatible", {"usage": {"prompt_tokens": True, "completion_tokens": -4}}, (None, None)),
        ("compatible", {}, (None, None)),
        ("anthropic", {"usage": {"input_tokens": 3, "cache_read_input_tokens": 5, "output_tokens": 4}}, (8, 4)),
        (
            "google",
            {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 2}},
            (3, 6),
        ),
    ],
)
def test_the_tokens_that_each_protocol_tells_are_read(provider, body, tokens):
    assert tokens_told(provider, body) == tokens


def test_a_scripted_model_is_a_language_model():
    model = ScriptedModel([{"title": "dig"}, BudgetError("spent")])
    assert asyncio.run(model.ask(QUESTION)).answer == Idea(title="dig")
    with pytest.raises(BudgetError):
        asyncio.run(model.ask(QUESTION))
    assert model.questions == [QUESTION, QUESTION]
