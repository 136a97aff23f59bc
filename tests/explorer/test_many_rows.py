"""Many rows by a CSV file in a real Chromium: it is judged, sealed and answered in the page."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from apps.listings.models import Query
from tests.explorer.test_js_client import FORGE
from tests.explorer.test_try_it import (  # noqa: F401
    Sent,
    asker,
    balance,
    expected,
    model_page,
    needles,
    sale,
)
from tests.support.browser import misfits
from tests.support.market import PRICE, drain_until

ROWS = [
    [1.29481753, -0.48162935],
    [-0.75318642, 0.25917364],
    [0.31415926, 1.41421356],
    [-1.61803398, -0.57721566],
    [0.69314718, -1.20205690],
]


def choose(page: Any, text: str | bytes, name: str = "patients.csv") -> None:
    content = text.encode() if isinstance(text, str) else text
    page.locator("#many-file").set_input_files(
        {"name": name, "mimeType": "text/csv", "buffer": content}
    )


def row(values: list[str]) -> str:
    return ",".join(values)


HEADER = [f"mean {name}" for name in (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "symmetry"
)]  # fmt: skip


def test_a_file_is_judged_before_anything_is_sent(model_page: Any) -> None:  # noqa: F811
    page = model_page.page
    page.locator("#many-section").wait_for()
    sent = Sent(page)
    good = ["15"] + ["1"] * 6 + ["even"]
    header = row(HEADER)

    lines = [header, row(good), row(["31"] + good[1:]), row(good[:1] + ["", "x"] + good[3:]), "1,2"]
    lines.append(row([*good[:7], "Even"]))
    choose(page, "\r\n".join(lines))
    page.get_by_text("5 values are missing or out of range in patients.csv.").wait_for()
    cells = page.locator("#many-wrong-rows tr").evaluate_all(
        "rows => rows.map(row => Array.from(row.cells, cell => cell.textContent))"
    )
    assert cells == [
        ["3", "mean radius", "Must be at most 30."],
        ["4", "mean texture", "Missing."],
        ["4", "mean perimeter", "Not a number."],
        ["5", "—", "Has 2 cells, the header has 8."],
        ["6", "mean symmetry", "Must be one of: even, odd,  or “none”."],
    ]
    assert not page.locator("#many-ready").is_visible()

    for content, said in (
        (row(HEADER[1:]) + "\n" + row(good[1:]), "Missing column: mean radius."),
        ("a,b\n1,2", "Missing columns: mean radius, mean texture"),
        (row([*HEADER, "mean radius"]) + "\n" + row([*good, "1"]), "is there twice"),
        (header, "no rows"),
        ("", "Missing columns"),
        (header + '\n"1', "The quotation mark in the row at line 2 is not closed."),
        (header.encode() + b"\n\xff", "not UTF-8"),
        (header + "\n" + (row(good) + "\n") * 10_001, "10000 at most"),
        (header.replace(",", ";") + "\n" + ";".join(["1,5", *good[1:]]), "One value is missing"),
    ):
        choose(page, content)
        page.locator("#many-said").get_by_text(said).wait_for()
        assert not page.locator("#many-ready").is_visible()

    # Other columns, another order, quotes, a mark at the start: as spreadsheets write them.
    shuffled = [*reversed(HEADER), "who"]
    cells = ["even", *(["1"] * 6), "15", '"M, ""the"" first\nof two"']
    text = row(shuffled) + "\n" + row(cells) + "\n\n"
    choose(page, ("\ufeff" + text).encode())
    what = page.locator("#many-what")
    what.get_by_text("1 row, every value within its range.").wait_for()
    assert "1 further column stays here" in what.inner_text()
    assert page.get_by_role("button", name="Pay $0.50 and predict 1 row").is_visible()
    assert not page.locator("#many-said").is_visible()
    assert sent.calls() == [] and model_page.complaints == []
    assert misfits(page) == []


def many(page: Any) -> list[list[float]]:
    """Five rows with a column that the model knows nothing of."""
    lines = ["who,b,a"] + [f"PERSON-{i},{b!r},{a!r}" for i, (a, b) in enumerate(ROWS)]
    choose(page, "\n".join(lines))
    return ROWS


def saved(page: Any, tmp_path: Path) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.locator("#many-save").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == "patients-answers.csv"
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_rows_of_a_file_are_answered_in_the_page_and_nothing_of_them_leaves_it(
    sale: Any,  # noqa: F811
    asker: Any,  # noqa: F811
    settings: Any,
    tmp_path: Path,
) -> None:
    settings.ROWS_PER_QUERY = 2
    visitor = asker(10_000_000)
    page, sent = visitor.page, Sent(visitor.page)
    rows = many(page)
    page.locator("#many-what").get_by_text("sent as 3 queries of 2 rows at most").wait_for()
    page.get_by_role("button", name="Pay $2.50 and predict 5 rows").click()
    for count in (1, 2, 3):
        drain_until(lambda count=count: Query.objects.filter(state="settled").count() == count)
    page.locator("#many-doing").get_by_text("5 of 5 rows answered.").wait_for()

    answers = saved(page, tmp_path)
    assert [answer["who"] for answer in answers] == [f"PERSON-{i}" for i in range(5)]
    for answer, values in zip(answers, rows, strict=True):
        assert (float(answer["a"]), float(answer["b"])) == tuple(values)
        assert abs(float(answer["probability"]) - expected(sale, values)) < 0.01
    assert balance(sale) == (10_000_000 - 5 * PRICE, 0)
    assert list(Query.objects.order_by("created_at").values_list("rows", flat=True)) == [2, 2, 1]

    bodies = sent.bytes() + b"".join(
        request.response().body() for request in sent.requests if "/api/" in request.url
    )
    for values in rows:
        found = needles(sale, values)
        assert found.found_in(str(values).encode())  # the search finds what it should
        assert found.found_in(bodies) == set()
    for answer in answers:
        for name in ("who", "probability", "logit"):
            assert answer[name].encode() not in bodies
    assert visitor.complaints == []


def test_ten_thousand_rows_are_one_query_and_the_page_says_how_far_it_is(
    sale: Any,  # noqa: F811
    asker: Any,  # noqa: F811
    settings: Any,
    tmp_path: Path,
) -> None:
    settings.ROWS_PER_EPOCH = 1_000_000
    visitor = asker(2 * 10_000 * PRICE)
    page = visitor.page
    rows = [[round(math.sin(i), 6), round(math.cos(i), 6)] for i in range(10_000)]
    choose(page, "a,b\n" + "\n".join(f"{a},{b}" for a, b in rows))
    page.locator("#many-what").get_by_text("asked and paid as one query").wait_for()
    page.get_by_role("button", name="Pay $5,000.00 and predict 10000 rows").click()
    said = page.locator("#many-doing")
    said.get_by_text("The price is held; they wait for their turn.").wait_for()
    assert said.inner_text().startswith("0 of 10000 rows answered.")
    assert page.locator("#many-bar").get_attribute("value") is None
    drain_until(lambda: Query.objects.filter(state="settled").exists())
    said.get_by_text("10000 of 10000 rows answered. All of them are paid").wait_for()
    answers = saved(page, tmp_path)
    assert len(answers) == 10_000 and Query.objects.get().rows == 10_000
    for at in range(0, 10_000, 997):
        assert abs(float(answers[at]["probability"]) - expected(sale, rows[at])) < 0.01
    assert balance(sale) == (10_000 * PRICE, 0) and visitor.complaints == []
    assert misfits(page) == []


def test_what_was_answered_is_kept_when_the_money_ends(
    sale: Any,  # noqa: F811
    asker: Any,  # noqa: F811
    settings: Any,
    tmp_path: Path,
) -> None:
    settings.ROWS_PER_QUERY = 2
    page = asker(1_200_000).page
    many(page)
    page.get_by_role("button", name="Pay $2.50 and predict 5 rows").click()
    drain_until(lambda: Query.objects.filter(state="settled").exists())
    page.get_by_text("Your balance is short by $0.80.").wait_for()
    assert "The 2 answers so far are yours." in page.locator("#many-said").inner_text()
    assert page.get_by_role("button", name="Pay $1.50 and go on with 3 rows").is_enabled()
    assert len(saved(page, tmp_path)) == 2
    assert balance(sale) == (200_000, 0)


def test_a_lost_answer_is_asked_again_and_paid_once(
    sale: Any,  # noqa: F811
    asker: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    page = asker(10_000_000).page
    lost: list[str] = []

    def lose(route: Any) -> None:
        if route.request.url.endswith("/inferences/") and not lost:
            lost.append(route.fetch().text())
            route.abort()
        else:
            route.continue_()

    page.route("**/api/v1/**", lose)
    many(page)
    page.get_by_role("button", name="Pay $2.50 and predict 5 rows").click()
    page.get_by_text("can't be paid twice").wait_for()
    assert page.locator("#many-file").is_disabled()
    page.locator("#many-pay").click()
    drain_until(lambda: Query.objects.filter(state="settled").exists())
    page.locator("#many-doing").get_by_text("5 of 5 rows answered.").wait_for()
    assert len(saved(page, tmp_path)) == 5 and Query.objects.count() == 1
    assert balance(sale) == (10_000_000 - 5 * PRICE, 0)


def test_rows_that_are_paid_and_not_opened_are_fetched_again_and_never_asked_anew(
    sale: Any,  # noqa: F811
    asker: Any,  # noqa: F811
    settings: Any,
    tmp_path: Path,
) -> None:
    """The first query's receipts come damaged until they don't, the last one's for good."""
    settings.ROWS_PER_QUERY = 2
    page = asker(10_000_000).page
    offered = page.locator("#many-pay")
    page.evaluate(FORGE)
    many(page)
    offered.click()
    drain_until(lambda: Query.objects.filter(state="settled").exists())
    again = "Open the answers to 2 rows that you have paid"
    for _ in range(2):
        page.get_by_role("button", name=again).wait_for()
        said = page.locator("#many-said").inner_text()
        assert "the nodes did not sign for it" in said
        assert "You have paid for 2 rows" in said and "costs nothing" in said
        assert page.locator("#many-file").is_disabled()
        offered.click()
        page.locator("#many-pay:enabled").wait_for()
    assert Query.objects.count() == 1 and balance(sale) == (10_000_000 - 2 * PRICE, 0)
    page.evaluate("globalThis.honest = true")
    offered.click()
    page.locator("#many-doing").get_by_text("2 of 5 rows answered.").wait_for()
    page.get_by_role("button", name="Pay $1.50 and go on with 3 rows").wait_for()
    assert Query.objects.count() == 1  # what costs nothing buys nothing
    offered.click()
    drain_until(lambda: Query.objects.filter(state="settled").count() == 2)
    page.locator("#many-doing").get_by_text("4 of 5 rows answered.").wait_for()
    page.evaluate("globalThis.honest = false")
    drain_until(lambda: Query.objects.filter(state="settled").count() == 3)
    page.get_by_role("button", name="Open the answers to 1 row that you have paid").wait_for()
    assert page.get_by_role("link", name="Save the 4 answers so far (CSV)").is_visible()
    page.get_by_role("button", name="Go on without them").click()
    assert page.locator("#many-file").is_enabled() and not offered.is_visible()
    assert "4 of 5 rows answered." in page.locator("#many-doing").inner_text()
    answers = saved(page, tmp_path)
    for answer, values in zip(answers[:4], ROWS, strict=False):
        assert abs(float(answer["probability"]) - expected(sale, values)) < 0.01
    assert (answers[4]["who"], answers[4]["probability"]) == ("PERSON-4", "")
    assert Query.objects.count() == 3 and balance(sale) == (10_000_000 - 5 * PRICE, 0)
    assert misfits(page) == []


def test_a_row_that_is_paid_and_not_opened_is_fetched_again(
    sale: Any,  # noqa: F811
    asker: Any,  # noqa: F811
) -> None:
    page = asker(10_000_000).page
    page.evaluate(FORGE)
    pay = page.get_by_role("button", name="Pay $0.50 and predict", exact=True)
    again = page.get_by_role("button", name="Open what you paid")
    pay.click()
    drain_until(lambda: Query.objects.filter(state="settled").exists())
    again.wait_for()
    assert "fetch it again, which costs nothing" in page.locator("#try-said").inner_text()
    page.evaluate("globalThis.honest = true")
    again.click()
    page.locator("#try-answer").wait_for()
    # one that is left as it is, is not asked again either
    page.evaluate("globalThis.honest = false")
    pay.click()
    drain_until(lambda: Query.objects.filter(state="settled").count() == 2)
    again.wait_for()
    page.get_by_role("button", name="Back to the example").click()
    assert pay.is_enabled() and not page.locator("#try-said").is_visible()
    assert Query.objects.count() == 2 and balance(sale) == (10_000_000 - 2 * PRICE, 0)


def test_a_file_can_be_dropped(model_page: Any) -> None:  # noqa: F811
    page = model_page.page
    page.locator("#many-section").wait_for()
    page.evaluate(
        """text => {
          const data = new DataTransfer();
          data.items.add(new File([text], "dropped.csv", { type: "text/csv" }));
          const event = new DragEvent("drop", { dataTransfer: data, cancelable: true });
          document.getElementById("many-drop").dispatchEvent(event);
        }""",
        row(HEADER) + "\n" + row(["15"] + ["1"] * 6 + ["even"]),
    )
    page.get_by_role("button", name="Pay $0.50 and predict 1 row").wait_for()
    assert misfits(page) == []
