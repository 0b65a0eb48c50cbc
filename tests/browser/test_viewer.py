"""The pages in a real browser: what is seen, what is never executed, and whom it keeps out."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import View, complaints
from tests.viewer.rows import verification, write

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 2</script>",
    "<img src=x onerror='window.hacked = 3'>",
    "<svg onload='window.hacked = 4'></svg>",
    "</details></main><iframe src='javascript:window.hacked = 5'></iframe>",
    "{{ 7 * 7 }} {% for x in (1, 2) %}",
    "\u202egnorw si siht\u202c right",
    "$\\def\\a{\\a\\a}\\a$",
    "\\(" + "\\frac{1}{" * 400 + "x" + "}" * 400 + "\\)",
    "\\href{javascript:window.hacked=6}{x} \\(\\href{javascript:window.hacked=7}{x}\\) \\(\\includegraphics{http://a.example/x.png}\\)",
    "\ud800 alone".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_what_models_write_is_shown_and_never_executed(page: Page, genprm: View, tmp_path: Path, text: str):
    url = genprm("view", write(tmp_path / "rows.jsonl", verification(text, 0, 1, text, text)))
    for path in ("/", "/rows/0"):
        await page.goto(url + path)
        assert await page.evaluate("window.hacked") is None
        assert await page.evaluate("document.querySelectorAll('iframe, main img, main script').length") == 0
    await page.keyboard.press("o")
    assert await page.evaluate("window.hacked") is None
    shown = await page.evaluate("document.querySelector('.segment pre:not(.code pre)').textContent")
    assert text.split()[0] in shown


async def test_broken_lines_and_megabytes(page: Page, genprm: View, tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", "no json <b>", verification("big", 0, 0, "x" * 2_000_000), "[1]", "{}")
    with open(path, "ab") as file:
        file.write(b'{"id": "\xff\xfe", "problem": "p", "error": "why", "solution": ["s"]}\n')
    url = genprm("view", path)
    await page.goto(url)
    await expect(page.locator("tbody tr")).to_have_count(5)
    await page.goto(f"{url}/?show=failed")
    await expect(page.locator("tbody tr")).to_have_count(4)
    await page.goto(f"{url}/rows/1")
    await expect(page.locator(".problem")).to_contain_text("1980000 more characters")
    await page.goto(f"{url}/rows/4")
    await expect(page.locator("main")).to_contain_text("failed: why")


@pytest.mark.alone
@pytest.mark.timeout(200)
async def test_a_hundred_thousand_rows(page: Page, genprm: View, tmp_path: Path):
    """The first page comes in under a second, while the rest is read; then all can be filtered and searched."""
    common = json.dumps(verification("ID", -1, -1, *["a step of some length, as steps are"] * 4))
    with open(tmp_path / "rows.jsonl", "w") as file:
        for number in range(100_000):
            file.write(common.replace('"ID"', f'"row-{number}"', 1) + "\n")
        file.write(json.dumps(verification("needle", 1, 0, "a", "Größe \\frac{1}{2}")) + "\n")
    url = genprm("view", tmp_path / "rows.jsonl")
    begun = time.monotonic()
    await page.goto(url)
    assert time.monotonic() - begun < 1
    await expect(page.locator("tbody tr")).to_have_count(50)
    await expect(page.locator("#progress")).to_contain_text("all of the file has been read", timeout=90_000)
    await page.goto(url)
    await expect(page.locator(".pages")).to_contain_text("page 1 of 2001, 100001 rows")
    for query in ("show=error", "show=wrong", "q=GRÖSSE+%5Cfrac".replace("GRÖSSE", "größe")):
        await page.goto(f"{url}/?{query}")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await expect(page.locator("tbody")).to_contain_text("needle")
    await page.goto(f"{url}/?page=2001")
    await expect(page.locator("tbody tr")).to_have_count(1)


async def test_keys_and_deep_links(page: Page, genprm: View, tmp_path: Path):
    rows = [verification(f"r{number}", number % 3 - 1, -1) for number in range(120)]
    url = genprm("view", write(tmp_path / "rows.jsonl", *rows))
    await page.goto(url)
    for key in "jjjk":
        await page.keyboard.press(key)
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("r1")
    await page.keyboard.press("n")
    await expect(page.locator("h1")).to_have_text("r2")
    await page.keyboard.press("u")
    await expect(page.locator("#progress")).to_be_visible()
    await page.keyboard.press("n")
    await expect(page.locator(".pages")).to_contain_text("page 2 of 3")
    await page.keyboard.press("/")
    await page.keyboard.type("r119")
    await page.keyboard.press("Enter")
    await expect(page.locator("tbody tr")).to_have_count(1)
    assert "q=r119" in page.url
    await page.goto(f"{url}/rows/0#step-1")
    await expect(page.locator("#step-1 .rationale")).to_be_visible()
    await expect(page.locator("#step-0 .rationale")).not_to_be_visible()


async def test_keys_while_the_page_is_still_coming(page: Page, genprm: View, tmp_path: Path):
    url = genprm("view", write(tmp_path / "rows.jsonl", verification("r0", -1), verification("r1", -1)))
    come = asyncio.Event()

    async def hold(route: Route) -> None:
        await come.wait()
        await route.continue_()

    await page.route("**/katex.min.js", hold)
    await page.goto(url + "/rows/0", wait_until="commit")
    await expect(page.locator("h1")).to_have_text("r0")
    await page.keyboard.press("n")
    await expect(page.locator("h1")).to_have_text("r1")
    come.set()


async def test_maths(page: Page, genprm: View, tmp_path: Path):
    text = "It costs $5, not $6; \\(x^2\\), $y_1$, so $\\boxed{\\$18}$ and \\[\\sum_i i\\] $\\nonsense$"
    await page.goto(genprm("view", write(tmp_path / "rows.jsonl", verification("m", 0, 0, text))) + "/rows/0")
    await expect(page.locator(".problem .katex").first).to_be_visible()
    assert await page.locator(".problem .katex").count() == 4
    string = page.locator(".code .s1, .code .s2").first
    assert await string.evaluate("each => getComputedStyle(each).backgroundColor") == "rgba(0, 0, 0, 0)"
    await expect(page.locator(".problem")).to_contain_text("It costs $5, not $6")
    await expect(page.locator(".problem")).to_contain_text("$\\nonsense$")


async def test_two_files(page: Page, genprm: View, tmp_path: Path):
    one = write(tmp_path / "one.jsonl", *(verification(f"r{number}", -1, 1) for number in range(4)))
    two = write(tmp_path / "two.jsonl", verification("r2", 1, 1), verification("r1", -1, 1), verification("r0", -1, 1))
    url = genprm("view", one, two)
    await page.goto(url)
    shown = [await row.inner_text() for row in await page.locator("tbody tr").all()]
    assert [line.split()[0] for line in shown] == ["r2", "r0", "r1", "r3"]
    assert "not there" in shown[3]
    await page.goto(f"{url}/rows/2")
    assert await page.locator("section").count() == 2
    await expect(page.locator("section").nth(1)).to_contain_text("first error: step 1")


async def test_a_synthesis_run(page: Page, genprm: View, tmp_path: Path):
    solution = {
        "id": "s",
        "problem": "P",
        "steps": ["one", "two"],
        "label": 1,
        "step_labels": [1, 0],
        "values": [0.75, 0],
    }
    attempts = [
        {"reason": "missed_error", "error": None, "transcript": None},
        {"reason": None, "transcript": {"messages": [{"role": "assistant", "content": "I argue"}]}},
    ]
    run = tmp_path / "run"
    (run / "shards").mkdir(parents=True)
    (run / "config.json").write_text('{"job": "synth"}')
    write(run / "shards" / "00000.jsonl", {"schema_version": 1, "solution": solution, "attempts": attempts})
    url = genprm("view", run)
    await page.goto(f"{url}/?reason=missed_error")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await page.locator("a.row").click()
    await expect(page.locator("meter").first).to_have_attribute("value", "0.75")
    await expect(page.locator("main")).to_contain_text("I argue")


LIVE = [
    {"when": r"(?s)the end of time.*step by step: $", "text": "Never said.", "seconds": 600},
    {"when": r"```python\n$", "text": "print(6 * 7)  # <img src=x onerror=alert(1)>\n```\n"},
    {"when": "step by step: $", "text": "We see \\(6 \\cdot 7\\) <b>.</analyze>\n"},
    {"when": r"(?s)18.*boxed\{$", "yes": 0.1},
    {"when": r"boxed\{$", "yes": 0.9},
    {"text": "So it is.\n</verify>\n<output>\n"},
]


async def test_a_live_verification(page: Page, genprm: View, tmp_path: Path):
    (tmp_path / "model.json").write_text(json.dumps(LIVE))
    url = genprm("serve", "--backend", "scripted", "--model", "model.json", "--sandbox", "local")
    await page.goto(url)
    await page.locator("#problem").fill("How long is that?")
    await page.locator("#solution").fill("It is short.\n\nIt is until the end of time.")
    await page.get_by_role("button", name="verify").click()
    await expect(page.locator("details").first.locator(".segment .katex").first).to_be_visible()
    await expect(page.locator("details").nth(1).locator(".verdict")).to_have_text("")
    await page.get_by_role("button", name="stop").click()
    await expect(page.locator("#status")).to_have_text("stopped")
    await page.get_by_role("button", name="an example").click()
    await page.get_by_role("button", name="verify").click()
    await expect(page.locator("#status")).to_contain_text("first error: step 1", timeout=20_000)
    await expect(page.locator("details").nth(1).locator(".verdict")).to_have_text("incorrect 0.100")
    await expect(page.locator("details").first).to_contain_text("<b>")
    await expect(page.locator("details").first.locator(".code .nb")).to_have_text("print")
    await expect(page.locator("details").first.locator(".code .c1")).to_contain_text("<img src=x onerror")
    assert await page.locator("img").count() == 0
    assert await complaints(page) == []


async def test_what_a_job_adds_is_seen(page: Page, genprm: View, tmp_path: Path):
    """Its last row half written: that is a broken one, until the rest of it is there."""
    rows = write(tmp_path / "rows.jsonl", verification("first"))
    whole = json.dumps(verification("second", 0))
    with rows.open("a") as file:
        file.write(whole[:200])
        file.flush()
        await page.goto(genprm("view", rows))
        await expect(page.locator("#progress")).to_contain_text("2 rows")
        await expect(page.locator("main")).not_to_contain_text("second")
        file.write(whole[200:] + "\n" + json.dumps(verification("third")) + "\n")
    async with asyncio.timeout(20):
        while "3 rows" not in await page.locator("#progress").inner_text():
            await page.reload()
    await expect(page.locator("main")).to_contain_text("second")
    await page.goto(page.url + "?show=error")
    await expect(page.locator("main")).not_to_contain_text("third")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
async def test_everybody_can_use_it(page: Page, genprm: View, tmp_path: Path, scheme: Any, width: int):
    row = verification("r", 1, 0, "a long step " * 20, "\\(x^2\\)")
    said = [
        {"kind": "analysis", "text": "another opinion"},
        {"kind": "code", "text": "print('x' * 999)  # " + "x" * 200},
    ]
    row["steps"][1]["votes"] = [{"score": 0.2, "segments": said}, {"score": 0.9}, {"score": None}]
    turns = [{"role": "user", "content": "Check it."}, {"role": "assistant", "content": "It is wrong. " * 40}]
    written = {
        "solution": {"id": "s", "problem": "p", "steps": ["one", "two"], "label": 1},
        "attempts": [
            {"reason": "missed_error", "transcript": {"messages": turns}},
            {"transcript": {"messages": turns}},
        ],
    }
    failed = {"id": "f", "problem": "p", "error": "e", "solution": ["s"]}
    rows = write(tmp_path / "rows.jsonl", row, failed, written)
    other = write(tmp_path / "other.jsonl", verification("r", -1), verification("elsewhere"))
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size({"width": width, "height": 800})
    for url in (genprm("view", rows), genprm("view", rows, other)):
        for path in ("/", "/rows/0", "/rows/1", "/rows/2"):
            await page.goto(url + path)
            await page.keyboard.press("o")
            assert await complaints(page) == [], path
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"


async def test_another_site_cannot_read_the_rows(genprm: View, tmp_path: Path):
    import httpx

    url = genprm("view", write(tmp_path / "rows.jsonl", verification("secret")))
    assert "secret" in httpx.get(url).text
    assert httpx.get(url, headers={"host": "evil.example"}).status_code == 400
    policy = httpx.get(url).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
