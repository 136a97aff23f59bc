"""A request is written in steps: by keyboard, with hints, and whole where there are no scripts."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from apps.rfms.models import Rfm
from tests.explorer import world as worlds
from tests.explorer.test_browser import FORM
from tests.explorer.test_keyboard import tab_to
from tests.support.browser import axe_violations
from tests.support.steps import fill, until_seen

AUTHOR = "author@example.org"


@pytest.fixture
def author(site: str, visit: Any, sign_in: Any) -> Any:
    """`author(**options)`: a signed-in visitor at the empty form."""
    worlds.sign_up(email=AUTHOR, password=worlds.PASSWORD, name="Author", kind="person")

    def new(**options: Any) -> Any:
        visitor = visit(**options)
        sign_in(visitor, AUTHOR)
        visitor.page.goto("/rfms/new/")
        return visitor

    return new


def heading(page: Page, name: str) -> Any:
    return page.get_by_role("heading", name=name, level=2, exact=True)


def test_the_keyboard_alone_writes_a_request_step_by_step(author: Any) -> None:
    """The focus goes to each step's heading; the browser's Back goes one step back; nothing is
    posted before the review has shown it."""
    visitor = author(reduced_motion="reduce")
    page = visitor.page
    now = page.locator(".strip [aria-current=step]")
    expect(now).to_have_text("Model")
    tab_to(page, "Title")
    page.keyboard.type("Sepsis in the next six hours")
    page.keyboard.press("Enter")  # the objective is missing: told, and taken there
    objective = page.get_by_label("Objective")
    expect(objective).to_be_focused()
    expect(objective).to_have_accessible_description(
        "This is needed. Who will use the answer, for which decision. Voters read this first."
    )
    page.keyboard.type("Warn the ward.")
    for name, label, text in (
        ("The data", "Features, one a line", "heart rate, 1/min, 20, 250\nlactate"),
        ("How good it must be", "", ""),
        ("Price and funding", "", ""),
        ("How it is governed", "", ""),
        ("Read it over", "", ""),
    ):
        tab_to(page, "Next: ")
        page.keyboard.press("Enter")
        expect(heading(page, name)).to_be_focused()
        assert axe_violations(page) == []
        if text:
            tab_to(page, label)
            page.keyboard.type(text)
            tab_to(page, "Label column")
            page.keyboard.type("septic")
    for line in ("Sepsis in the next six hours", "0.50 USDC a row", "lactate", "septic"):
        expect(page.locator("#review")).to_contain_text(line)
    page.go_back()
    expect(heading(page, "How it is governed")).to_be_focused()
    page.go_forward()
    page.get_by_role("link", name="Models").first.click()
    page.wait_for_url("**/models/")
    page.go_back()  # what was entered is there again
    expect(page.locator("#review")).to_contain_text("lactate")
    tab_to(page, "Change: Price and funding")
    page.keyboard.press("Enter")
    expect(heading(page, "Price and funding")).to_be_focused()
    tab_to(page, "Price of one prediction")
    page.keyboard.press("End")
    page.keyboard.type("5")
    page.locator(".strip").get_by_role("link", name="Review").press("Enter")
    expect(page.locator("#review")).to_contain_text("0.505 USDC a row")
    assert not Rfm.objects.exists()
    tab_to(page, "Save and preview")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Your draft").wait_for()
    assert Rfm.objects.get().spec["price_micro"] == "505000"
    assert visitor.complaints == []


def test_steps_ask_what_the_model_class_needs_and_open_where_the_server_objects(
    author: Any,
) -> None:
    page = author().page
    asked = ("Features, one a line", "Data standard", "One value every", "Least plausible value")
    for name, hidden in (
        ("forecaster", [True, True, False, False]),
        ("linear", [False, False, True, False]),
    ):
        page.get_by_label("Model class").select_option(name)
        of = "control => control.closest('.field').hidden"
        assert [page.get_by_label(label).evaluate(of) for label in asked] == hidden
    fill(page, {"Title": "Length of stay", "Objective": "Plan the beds."} | {
        "Features, one a line": "age, a, 0, 120", "Label column": "days",
        "Least plausible value": "0", "Largest plausible value": "90",
    })  # fmt: skip
    page.locator(".strip").get_by_role("link", name="Data").click()
    seen = {"Value that means yes": False, "Its classes": False, "Least plausible value": True}
    assert {label: page.get_by_label(label).is_visible() for label in seen} == seen
    page.get_by_label("Features, one a line").fill("age, a, 120, 0")  # which only the server reads
    page.locator(".strip").get_by_role("link", name="Quality").click()
    expect(page.get_by_label("Least R²")).to_be_visible()
    page.get_by_label("Least R²").fill("7")
    page.get_by_role("button", name="Next: money").click()
    expect(page.get_by_label("Least R²")).to_be_focused()
    expect(page.locator("#step-quality")).to_contain_text("At most 1.")
    page.get_by_label("Least R²").fill("0.3")
    until_seen(page, page.get_by_label("Treasury")).fill("20")
    page.get_by_role("button", name="Next: rules").click()
    expect(page.locator("#step-money")).to_contain_text("Together they must make 100 %.")
    page.get_by_label("Treasury").fill("12")
    save = until_seen(page, page.get_by_role("button", name="Save and preview"))
    save.click()
    expect(page.locator("#errors")).to_be_focused()
    expect(heading(page, "The data")).to_be_visible()
    expect(page.locator("#step-data .error")).to_contain_text("Line 1")
    page.locator(".strip").get_by_role("link", name="Money").click()  # said, not yet mended
    page.locator("#errors").get_by_role("link", name="Features").click()
    features = page.get_by_label("Features, one a line")
    expect(features).to_be_focused()
    assert axe_violations(page) == []
    features.fill('age, a, 0, 120\nstage, category, I, "II, III"\nsmoker, boolean')
    until_seen(page, save).click()
    told = page.get_by_role("region", name="Features")
    expect(told.get_by_role("row", name="stage")).to_have_text(
        "stageone ofI(others are compared with it)II, III"
    )
    expect(told.get_by_role("row", name="smoker")).to_contain_text("yes or no")
    page.get_by_role("link", name="Change it").click()  # a draft is changed in the same steps
    expect(page.get_by_label("Title")).to_have_value("Length of stay")
    expect(page.get_by_label("Label column")).to_be_hidden()
    spec = Rfm.objects.get().spec
    assert spec["label"] == {"name": "days", "min": "0", "max": "90"}
    assert [f["type"] for f in spec["features"]] == ["number", "category", "boolean"]
    assert spec["features"][1]["levels"] == ["I", "II, III"]


def test_without_scripts_the_whole_form_stands_on_its_page(author: Any) -> None:
    page = author(java_script_enabled=False).page
    for label, text in FORM.items():
        page.get_by_label(label).fill(text)
    assert page.locator("fieldset.step:visible").count() == 5
    assert page.get_by_label("Its classes").is_visible()
    assert not page.get_by_role("button", name="Next").count()
    page.get_by_role("button", name="Save and preview").click()
    page.get_by_role("heading", name="Your draft").wait_for()


def test_what_was_entered_outlives_a_reload_and_can_be_thrown_away(author: Any) -> None:
    visitor = author()
    page = visitor.page
    back = page.locator("[data-draft-back]")
    title = page.get_by_label("Title")
    assert not back.is_visible()
    title.fill("Sepsis in the next six hours")
    title.press("Enter")  # one step on is no sending
    page.get_by_label("Model class").select_option("linear")
    page.get_by_label("Interpretable").check()
    page.reload()
    expect(title).to_have_value("Sepsis in the next six hours")
    expect(page.get_by_label("Model class")).to_have_value("linear")
    expect(page.get_by_label("Interpretable")).to_be_checked()
    expect(back).to_contain_text("it is not saved yet")
    back.get_by_role("button", name="Begin anew").click()
    expect(title).to_have_value("")
    expect(back).to_be_hidden()
    # whoever signs in next in this tab sees nothing of it
    title.fill("Of the one before")
    kept = page.evaluate("Object.keys(sessionStorage).filter((key) => key.startsWith('flai'))")
    party = page.locator("form[data-draft]").get_attribute("data-draft")
    assert party and kept == [f"flai-draft {party} /rfms/new/"]
    assert visitor.complaints == []
