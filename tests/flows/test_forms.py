"""The form of a deployment in a real browser: what it shows, what it starts, and what it refuses."""

import asyncio
import contextlib
import time

import pytest
from playwright.sync_api import expect, sync_playwright
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter

from flowrl_cli.request import make_request
from flowrl_core.storage.registry import Registry
from tasks.orchestration.campaign_runs import CampaignRun, cancel_campaign_run

LOADING_MS = 60_000
PATIENCE_S = 120
expect.set_options(timeout=LOADING_MS)


def on_server(work):
    """What `await work(client)` returns."""

    async def call():
        async with get_client() as client:
            return await work(client)

    return asyncio.run(call())


def deployment(name):
    return on_server(lambda client: client.read_deployment_by_name(name))


def runs_of(name):
    """The ids of a deployment's runs."""
    wanted = DeploymentFilter.model_validate({"id": {"any_": [deployment(name).id]}})
    return {run.id for run in on_server(lambda client: client.read_flow_runs(deployment_filter=wanted))}


@contextlib.contextmanager
def form(chromium, server, name):
    """A deployment's form, reached as a person does. No event loop may be used within the block: playwright has one."""
    id = deployment(name).id
    with sync_playwright() as playwright:
        # In containers, and for root, its own sandbox does not start.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1_300, "height": 1_600})
        page.set_default_timeout(LOADING_MS)
        page.goto(server.url.removesuffix("/api"))
        page.get_by_role("link", name="Deployments").click()
        page.locator(f"a[href*='{id}']").first.click()
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_text("Custom run").click()
        expect(page.get_by_role("heading", name="Parameters")).to_be_visible()
        yield page
        browser.close()


def field(page, name):
    """The field of this name with its title, help text and message."""
    return page.locator("div.group", has=page.get_by_text(f"{name} (Optional)", exact=True)).last


def fill(page, name, value):
    page.get_by_label(f"{name} (Optional)", exact=True).fill(value)


def submit(page):
    page.get_by_role("button", name="Submit").click()


def test_a_campaign_is_started_from_the_form_as_the_command_would(chromium, server):
    before = runs_of("campaign/default")
    with form(chromium, server, "campaign/default") as page:
        for group in ("limits", "evaluation", "training"):
            expect(page.get_by_text(f"{group} (Optional)", exact=True)).to_be_visible()
        expect(field(page, "targets")).to_contain_text("Skills to learn. None: those of the earlier start")
        expect(field(page, "max_parallel")).to_contain_text("Skills submitted at the same time")
        titles = page.locator("label").all_inner_texts()
        assert titles.index("campaign (Optional)") < titles.index("max_parallel (Optional)"), "what is rare comes last"
        field(page, "targets").get_by_role("button", name="Add item").click()
        field(page, "targets").get_by_role("textbox").fill("dig_a")
        fill(page, "campaign", "by-form")
        fill(page, "env", "corridor")
        fill(page, "width", "16")
        fill(page, "max_parallel", "2")
        submit(page)
        expect(page.get_by_text("scheduled to start now")).to_be_visible()
    (run,) = runs_of("campaign/default") - before

    asked = {"env": "corridor", "targets": ["dig_a"], "training": {"width": 16}, "limits": {"max_parallel": 2}}
    with Registry.open(server.home) as registry:
        try:
            assert recorded(registry, run, "by-form").spec == make_request({"campaign": "by-form", **asked}).spec
        finally:
            asyncio.run(cancel_campaign_run(CampaignRun(run, registry.uuid, "by-form", attached=False)))


def recorded(registry, run, campaign):
    """The campaign, once its run has recorded it and is tagged as its own."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if f"campaign:{campaign}" in on_server(lambda client: client.read_flow_run(run)).tags:
            return registry.campaign(campaign)
        time.sleep(0.2)
    pytest.fail(f"nobody has started {campaign}")


def test_a_wrong_value_is_told_at_its_field_and_starts_nothing(chromium, server):
    before = runs_of("campaign/default")
    with form(chromium, server, "campaign/default") as page:
        fill(page, "campaign", "no name!")
        submit(page)
        expect(field(page, "campaign")).to_contain_text("'no name!' does not match")
        fill(page, "campaign", "a-name")
        fill(page, "width", "0")
        submit(page)
        width = page.get_by_label("width (Optional)", exact=True)
        assert "greater than or equal to 1" in width.evaluate("input => input.validationMessage")
        assert page.url.partition("?")[0].endswith("/run"), "it is still the form"
    assert runs_of("campaign/default") == before


def test_housekeeping_shows_its_kinds_and_is_off_by_default(chromium, server):
    with form(chromium, server, "housekeeping/default") as page:
        expect(field(page, "delete")).to_contain_text("Off: only list it")
        expect(page.get_by_label("delete (Optional)", exact=True)).not_to_be_checked()
        for kind in ("records", "runs", "versions", "leftovers", "learners"):
            expect(field(page, "what").get_by_text(kind, exact=True)).to_be_visible()
