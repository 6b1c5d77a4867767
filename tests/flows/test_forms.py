"""The form of a deployment in a real browser: what it shows, what it starts, and what it refuses."""

import contextlib

from browsers import browsing, expect
from deployment_runs import end_of, on_server, runs_of

from flowrl_cli.request.campaign import make_request


def ids(name):
    """The ids of a deployment's runs."""
    return {run.id for run in on_server(lambda client: runs_of(client, name))}


@contextlib.contextmanager
def form(chromium, server, name):
    """A deployment's form, reached as a person does."""
    id = on_server(lambda client: client.read_deployment_by_name(name)).id
    with browsing(chromium, server.url.removesuffix("/api")) as page:
        page.get_by_role("link", name="Deployments").click()
        page.locator(f"a[href*='{id}']").first.click()
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_text("Custom run").click()
        expect(page.get_by_role("heading", name="Parameters")).to_be_visible()
        yield page


def field(page, name):
    """The field of this name with its title, help text and message."""
    return page.locator("div.group", has=page.get_by_text(f"{name} (Optional)", exact=True)).last


def fill(page, name, value):
    page.get_by_label(f"{name} (Optional)", exact=True).fill(value)


def submit(page):
    page.get_by_role("button", name="Submit").click()


def test_a_campaign_is_started_from_the_form_as_the_command_would(chromium, server, learned):
    before = ids("campaign/default")
    with form(chromium, server, "campaign/default") as page:
        for group in ("limits", "evaluation", "training", "frontier"):
            expect(page.get_by_text(f"{group} (Optional)", exact=True)).to_be_visible()
        expect(field(page, "targets")).to_contain_text("Skills to learn, or fluents to obtain")
        expect(field(page, "max_parallel")).to_contain_text("Maximum number of skills submitted at the same time")
        titles = page.locator("label").all_inner_texts()
        assert titles.index("campaign (Optional)") < titles.index("max_parallel (Optional)"), "what is rare comes last"
        field(page, "targets").get_by_role("button", name="Add item").click()
        field(page, "targets").get_by_role("textbox").fill("dig_a")
        fill(page, "campaign", "by-form")
        fill(page, "env", "corridor")
        fill(page, "width", "16")
        fill(page, "max_parallel", "2")
        with page.expect_response("**/create_flow_run") as answer:
            submit(page)
        assert answer.value.ok, answer.value.text()
    (run,) = ids("campaign/default") - before
    asked = {"env": "corridor", "targets": ["dig_a"], "training": {"width": 16}, "limits": {"max_parallel": 2}}
    assert end_of(run).message == "learned dig_a"
    assert learned.campaigns.get("by-form").spec == make_request({"campaign": "by-form", **asked}).spec


def test_a_form_that_is_asked_to_check_tells_a_wrong_value_at_its_field_and_starts_nothing(chromium, server):
    before = ids("campaign/default")
    with form(chromium, server, "campaign/default") as page:
        page.get_by_label("Enforce Parameter Schema").click()
        fill(page, "campaign", "no name!")
        submit(page)
        expect(field(page, "campaign")).to_contain_text("'no name!' does not match")
        fill(page, "campaign", "a-name")
        fill(page, "width", "0")
        submit(page)
        width = page.get_by_label("width (Optional)", exact=True)
        assert "greater than or equal to 1" in width.evaluate("input => input.validationMessage")
        assert page.url.partition("?")[0].endswith("/run"), "it is still the form"
    assert ids("campaign/default") == before


def test_housekeeping_shows_its_kinds_and_is_off_by_default(chromium, server):
    with form(chromium, server, "housekeeping/default") as page:
        expect(field(page, "delete")).to_contain_text("off: only list it")
        expect(page.get_by_label("delete (Optional)", exact=True)).not_to_be_checked()
        for kind in ("records", "runs", "versions", "leftovers", "learners"):
            expect(field(page, "what").get_by_text(kind, exact=True)).to_be_visible()
