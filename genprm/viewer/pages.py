"""The pages: a live verification, a list of rows, a row, two files side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

import jinja2
from fastapi import APIRouter, Body, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from genprm.highlighting import code_styles, python
from genprm.viewer.index import Facts, Filter, RowIndex
from genprm.viewer.shown import ShownRow, color, shown_row

LONGEST_CODE = 20_000
"""Characters of code that a live page has coloured; longer code stays as it is."""
PAGE = 50
"""Rows of a page."""
FIRST_ROWS = 0.5
"""Seconds that the first page waits for rows to be found."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class _Static(StaticFiles):
    """Files of ours, which are what their names say."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers["x-content-type-options"] = "nosniff"
        return answer


def add_static(app: FastAPI) -> None:
    """Serve what the pages load: styles, scripts, KaTeX."""
    app.mount("/static", _Static(packages=[("genprm.viewer", "static")]), name="static")

    @app.get("/code.css", include_in_schema=False)
    async def code_css() -> Response:
        light, dark = code_styles()
        css = f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n.code {{ background: none; }}\n"
        return Response(css, media_type="text/css")


def create_viewer(indexes: Sequence[RowIndex]) -> FastAPI:
    """The application of ``genprm view``: one file, or two beside each other."""
    app = FastAPI(openapi_url=None)
    # A page of another site must not read the rows by way of a name of its own for this machine.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    add_static(app)
    app.include_router(rows_router(indexes))
    for kind in (HTTPException, RequestValidationError, OSError, IndexError):
        app.add_exception_handler(kind, _refused)
    return app


def live_router(model: str, style: str) -> APIRouter:
    """The page of a server, on which a verification is watched.

    Args:
        model: what verifies.
        style: and how.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def live() -> HTMLResponse:
        return _page("live.html", title="genprm", model=model, style=style)

    @router.post("/code")
    def code(text: Annotated[str, Body(embed=True, max_length=LONGEST_CODE)]) -> HTMLResponse:
        return HTMLResponse(python(text), headers=_HEADERS)

    return router


def rows_router(indexes: Sequence[RowIndex]) -> APIRouter:
    """The pages of one file, or of two beside each other.

    Args:
        indexes: of the files, one or two.
    """
    router = APIRouter(include_in_schema=False)
    index = indexes[0]

    @router.get("/")
    def rows(
        wanted: Annotated[Filter, Query(alias="show")] = Filter.ALL,
        reason: Annotated[str, Query(max_length=50)] = "",
        text: Annotated[str, Query(alias="q", max_length=200)] = "",
        page: Annotated[int, Query(ge=1, le=10**9)] = 1,
    ) -> HTMLResponse:
        index.wait_for(page * PAGE, FIRST_ROWS)
        start = (page - 1) * PAGE
        if order := _order(indexes, wanted, reason, text):
            numbers, found = order[start : start + PAGE], len(order)
        else:
            numbers, found = index.find(wanted, reason, text, start, PAGE)

        def at(number: int) -> str:
            return _query(wanted, reason, text, number)

        return _page(
            "rows.html", title=_names(indexes)[0], names=_names(indexes), index=index,
            other=indexes[1] if len(indexes) == 2 else None,
            rows=[_shown(index, number) for number in numbers],
            others=[_other(indexes, index.facts[number]) for number in numbers],
            found=found, page=page, pages=max(1, -(-found // PAGE)), at=at, wanted=wanted, reason=reason, text=text,
            filters=list(Filter), here=at(page), complete=_complete(indexes),
            missing=index.missing(indexes[1]) if len(indexes) == 2 else 0,
        )  # fmt: skip

    @router.get("/rows/{number}.json")
    def raw(number: int) -> PlainTextResponse:
        _check(index, number)
        return PlainTextResponse(index.raw(number).decode("utf-8", "replace"), headers=_HEADERS)

    @router.get("/rows/{number}")
    def row(
        number: int,
        wanted: Annotated[Filter, Query(alias="show")] = Filter.ALL,
        reason: Annotated[str, Query(max_length=50)] = "",
        text: Annotated[str, Query(alias="q", max_length=200)] = "",
        page: Annotated[int, Query(ge=1, le=10**9)] = 1,
    ) -> HTMLResponse:
        _check(index, number)
        if order := _order(indexes, wanted, reason, text):
            place = order.index(number)
            before = order[place - 1] if place else None
            after = order[place + 1] if place + 1 < len(order) else None
        else:
            before, after = index.next_to(number, wanted, reason, text)
        return _page(
            "row.html", title=f"{index.facts[number].id}, {index.path.name}", names=_names(indexes), index=index,
            row=_shown(index, number), before=before, after=after, here=_query(wanted, reason, text, page),
            other=_other(indexes, index.facts[number]), other_index=indexes[1] if len(indexes) == 2 else None,
        )  # fmt: skip

    @router.get("/progress")
    def progress() -> dict[str, Any]:
        return {
            "share": min(each.share for each in indexes),
            "rows": len(index),
            "complete": _complete(indexes),
        }

    return router


def _complete(indexes: Sequence[RowIndex]) -> bool:
    return all(each.complete for each in indexes)


def _order(indexes: Sequence[RowIndex], wanted: Filter, reason: str, text: str) -> list[int]:
    """The order of a list of all rows of two files; empty where rows come as they stand in their file."""
    is_whole = wanted is Filter.ALL and not (reason or text)
    return differing(*indexes) if len(indexes) == 2 and is_whole else []


def differing(index: RowIndex, other: RowIndex) -> list[int]:
    """The rows of a file, those first of which another file says something else, and last those it does not have."""

    def rank(number: int) -> int:
        facts = index.facts[number]
        there = other.same(facts)
        return 2 if there is None else int(other.facts[there].named == facts.named)

    return sorted(range(len(index)), key=rank)


def _query(wanted: Filter, reason: str, text: str, page: int) -> str:
    """A list's filters and page, as an address has them."""
    given = {"show": "" if wanted is Filter.ALL else wanted.value, "reason": reason, "q": text}
    if page > 1:
        given["page"] = str(page)
    found = urlencode({name: value for name, value in given.items() if value})
    return f"?{found}" if found else ""


def _refused(request: Request, error: Exception) -> Response:
    """A page that says what is wrong."""
    if isinstance(error, HTTPException):
        status, why = error.status_code, str(error.detail)
    elif isinstance(error, RequestValidationError):
        status, why = 422, str(error.errors()[0]["msg"])
    elif isinstance(error, IndexError):  # the rows were forgotten under the page
        status, why = 410, "the file was written anew, and is being read: look again"
    else:
        status, why = 410, f"the file cannot be read any more: {error}"
    page = _page("error.html", title=f"{status}", why=why)
    page.status_code = status
    return page


def _shown(index: RowIndex, number: int) -> ShownRow:
    return shown_row(number, index.row(number), index.facts[number])


def _other(indexes: Sequence[RowIndex], facts: Facts) -> ShownRow | None:
    if len(indexes) < 2 or (number := indexes[1].same(facts)) is None:
        return None
    return _shown(indexes[1], number)


def _check(index: RowIndex, number: int) -> None:
    index.wait_for(number + 1, FIRST_ROWS)
    if not 0 <= number < len(index):
        raise HTTPException(404, f"there is no row {number}")


def _page(name: str, **given: Any) -> HTMLResponse:
    text = _TEMPLATES.get_template(name).render(**given)
    return HTMLResponse(text.encode("utf-8", "replace"), headers=_HEADERS)  # a row may hold half a character


def _names(indexes: Sequence[RowIndex]) -> list[str]:
    """What the files are called: by their whole path where two have one name."""
    names = [index.path.name for index in indexes]
    return names if len(set(names)) == len(names) else [str(index.path) for index in indexes]


def _named(index: int | None) -> str:
    return "–" if index is None else "none" if index < 0 else f"step {index}"


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("genprm.viewer"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals.update(color=color, named=_named, python=python)
