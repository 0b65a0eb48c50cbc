"""Real Chromium, which tells of everything that it should not have to: errors, dialogs, requests to other hosts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import axe_playwright_python
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.cli.conftest import command

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(QUIET))
        yield started
        await started.close()


View = Callable[..., str]


@pytest.fixture
def genprm(tmp_path: Path) -> Iterator[View]:
    """Start ``genprm view`` or ``genprm serve``; returns its address."""
    with ExitStack() as stack:

        def start(*arguments: object) -> str:
            process = stack.enter_context(
                subprocess.Popen(command(*arguments, "--port", 0), stderr=subprocess.PIPE, text=True, cwd=tmp_path)
            )
            stack.callback(process.terminate)
            assert process.stderr is not None
            said = ""
            for line in process.stderr:
                said += line
                if "http://" in line:
                    return "http://" + line.partition("http://")[2].split(";")[0].split('"')[0].strip()
            raise AssertionError(said)

        yield start


@pytest_asyncio.fixture
async def page(browser: Browser, genprm: View, request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    """A page, closed before ``genprm`` stops; what it must not do fails the test. A screenshot of its end is kept."""
    opened = await browser.new_page(viewport={"width": 1100, "height": 900})
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
    opened.on("request", lambda sent: wrong.append(sent.url) if urlsplit(sent.url).hostname != "127.0.0.1" else None)
    yield opened
    ARTIFACTS.mkdir(exist_ok=True)
    await opened.screenshot(path=ARTIFACTS / f"{request.node.name}.png")
    await opened.close()
    assert wrong == []


async def complaints(page: Page) -> list[Any]:
    """What axe finds to be hard for some people, of levels A and AA."""
    await page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text())
    found = await page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
    return [(each["id"], each["help"], [node["html"][:200] for node in each["nodes"]]) for each in found["violations"]]
