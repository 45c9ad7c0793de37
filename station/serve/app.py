"""The application: the table of endpoints, the page's files, the guard in front, and the server that runs it."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import re
import uuid
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import overflight
from overflight.runtime.errors import OverflightError
from overflight.runtime.json_input import decode_json
from overflight.station.serve import live, mapping, reviewing, rows, searching, shapes, teaching, tile_files, uploading
from overflight.station.serve.endpoint import Call, Endpoint, File, NotKeptError, RefusedError, describe, refuse
from overflight.station.serve.guard import Guard, cookie_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from overflight.station.serve.desk import Desk

JPEG = ("image/jpeg",)
ROW = {"row": {"type": "integer", "minimum": 1}}
TILE = {name: {"type": "integer", "minimum": 0} for name in "zxy"}
COOKIE_S = 30 * 86_400
WRITTEN_BYTES = 1 << 20


def get_state(desk: Desk, call: Call) -> shapes.State:
    """Return what this server has."""
    flights = desk.flights()
    tower = desk.bundle.manifest.tower if desk.model else None
    infos = tuple(
        shapes.FlightInfo(
            one.id,
            one.name,
            one.kind,
            one.model,
            one.frames,
            one.rows,
            one.unindexed,
            one.tower == tower,
            one.began_utc_ns,
            one.ended_utc_ns,
        )
        for one in flights
    )
    archive = None
    labels: tuple[str, ...] = ()
    if desk.has_archive:
        with desk.archive.read() as connection:
            query = "SELECT DISTINCT label FROM rows WHERE label IS NOT NULL ORDER BY label LIMIT 500"
            labels = tuple(label for (label,) in connection.execute(query))
        name = desk.archive.directory.resolve().name
        archive = shapes.ArchiveInfo(
            name, len(flights), sum(one.rows for one in flights), sum(one.unindexed for one in flights)
        )
    banks, banks_unread = teaching.describe_banks(desk.banks())
    return shapes.State(
        overflight.__version__,
        archive,
        desk.model,
        infos,
        labels,
        banks,
        banks_unread,
        live.aircraft_infos(desk),
        *tile_files.tile_sources(),
        desk.settings.upload_bytes,
    )


ENDPOINTS = (
    Endpoint("GET", "/api/state", get_state, "What this server has", shapes.State),
    Endpoint("POST", "/api/search", searching.post_search, "Search the archive", shapes.Answer, shapes.Asked),
    Endpoint("GET", "/api/rows/{row}", rows.get_row, "One row of the archive", shapes.Seen, parameters=ROW),
    Endpoint(
        "GET", "/api/rows/{row}/picture.jpg", rows.get_row_picture, "A row's picture", File,
        query=rows.WidthAsked, media=JPEG, parameters=ROW, empty=True,
    ),
    Endpoint(
        "GET", "/api/rows/{row}/original", rows.get_row_original, "The still as it was taken", File,
        media=("image/jpeg", "image/png", "image/webp"), parameters=ROW,
    ),
    Endpoint(
        "GET", "/api/rows/{row}/neighbours", rows.get_neighbours, "Rows that look like it", list[shapes.Seen],
        query=rows.CountAsked, parameters=ROW,
    ),
    Endpoint(
        "GET", "/api/rows/{row}/ground", rows.get_ground, "The same ground in other flights", list[shapes.Seen],
        parameters=ROW,
    ),
    Endpoint(
        "GET", "/api/findings", reviewing.get_findings, "The list of findings", shapes.FindingsPage,
        query=shapes.FindingsAsked,
    ),
    Endpoint(
        "POST", "/api/findings/{number}", reviewing.post_finding, "Decide about a finding", shapes.Seen, shapes.Mark,
    ),
    Endpoint(
        "GET", "/api/review.zip", reviewing.get_reviews, "Every decision, to merge elsewhere", File,
        media=("application/zip",),
    ),
    Endpoint(
        "POST", "/api/review/merge", reviewing.post_merge, "Take the decisions of another archive", shapes.Merged,
        bytes, reviewing.NameAsked,
    ),
    Endpoint(
        "POST", "/api/export", reviewing.post_export, "Write findings as a file", File, shapes.ExportAsked,
        media=tuple(reviewing.MEDIA.values()),
    ),
    Endpoint("POST", "/api/teach", teaching.post_teach, "Fit a label on choices", shapes.Taught, shapes.Choices),
    Endpoint("POST", "/api/banks", teaching.post_bank, "Keep a label in a bank", shapes.BankInfo, shapes.BankAsked),
    Endpoint(
        "GET", "/api/banks/{id}/file", teaching.get_bank_file, "A label bank", File,
        media=("application/octet-stream",),
    ),
    Endpoint(
        "GET", "/api/aircraft/{id}/bank", live.get_aircraft_bank, "The bank in flight", shapes.BankInFlight,
    ),
    Endpoint(
        "POST", "/api/aircraft/{id}/bank", live.post_aircraft_bank, "Send a bank to an aircraft", shapes.BankInFlight,
        shapes.SendAsked,
    ),
    Endpoint(
        "POST", "/api/uploads", uploading.post_upload, "Take a picture", shapes.Uploaded, Path, uploading.UploadAsked,
    ),
    Endpoint(
        "POST", "/api/classify", uploading.post_classify, "Classify a picture", shapes.Classified, shapes.ClassifyAsked,
    ),
    Endpoint(
        "POST", "/api/features", uploading.post_features, "Embeddings of pictures", File, shapes.FeaturesAsked,
        media=("application/octet-stream", "application/json"),
    ),
    Endpoint("GET", "/api/map", mapping.get_map, "What has a place", shapes.MapData, query=mapping.MapAsked),
    Endpoint(
        "GET", "/api/mosaics/{file}", mapping.get_mosaic, "A mosaic, small", File, media=("image/webp",), empty=True,
    ),
    Endpoint("POST", "/api/tiles", tile_files.post_tiles, "Remember map tiles", shapes.TileSource, shapes.TilesAsked),
    Endpoint(
        "GET", "/tiles/{id}/{z}/{x}/{y}", tile_files.get_tile, "One map tile", File,
        media=("image/png", "image/jpeg", "image/webp"), parameters=TILE, empty=True,
    ),
    Endpoint(
        "GET", "/api/live/{id}/picture.jpg", live.get_live_picture, "A flight's newest picture", File,
        query=live.FrameAsked, media=JPEG, empty=True,
    ),
    Endpoint(
        "GET", "/api/live/{id}/events/{file}", live.get_event_picture, "A picture of an event", File,
        media=JPEG, empty=True,
    ),
    Endpoint(
        "GET", "/api/live/{id}/track", live.get_track, "Where a flight has been", list[tuple[float, float]],
    ),
)  # fmt: skip


def make_app(desk: Desk) -> tuple[Guard, live.LiveBoard]:
    """Return the application behind its guard, and what sends its live events."""
    board = live.LiveBoard(desk)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        desk.prepare_early()
        yield
        board.closing.set()
        await run_in_threadpool(desk.close)

    async def events(request: Request) -> Response:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=headers)
        return StreamingResponse(board.events(), media_type="text/event-stream", headers=headers)

    async def openapi(request: Request) -> Response:
        return _json(describe(ENDPOINTS, overflight.__version__))

    async def session(request: Request) -> Response:
        return await _log_in(guard, request, desk.settings.port)

    routes = [Route(one.path, _handler(desk, one, board.closing), methods=[one.method]) for one in ENDPOINTS]
    routes += [
        Route("/", _page, methods=["GET"]),
        Route("/assets/{path:path}", _asset, methods=["GET"]),
        Route("/healthz", _healthy, methods=["GET"]),
        Route("/api/live", events, methods=["GET"]),
        Route("/api/session", session, methods=["POST"]),
        Route("/openapi.json", openapi, methods=["GET"]),
    ]
    app = Starlette(
        routes=routes, lifespan=lifespan, exception_handlers={404: _unknown, 405: _unknown, Exception: _broken}
    )
    settings = desk.settings
    guard = Guard(
        app, names=settings.names, port=settings.port, token=settings.token, upload_bytes=settings.upload_bytes
    )
    return guard, board


def _handler(desk: Desk, endpoint: Endpoint, closing: asyncio.Event) -> Any:
    async def answer(request: Request) -> Response:
        try:
            found = await _unless_closing(_found(desk, endpoint, request), closing)
        except ClientDisconnect:
            return _json(shapes.Problem("the request was cut off, or is too large", "size"), 413)
        except NotKeptError as error:
            status, problem = refuse(error)
            return Response(status_code=HTTPStatus.NO_CONTENT) if endpoint.empty else _json(problem, status)
        except OverflightError as error:
            status, problem = refuse(error)
            return _json(problem, status)
        except OSError as error:  # a full or missing disk; its paths are nobody's business
            return _json(shapes.Problem(f"the station's disk: {error.strerror or error}", "storage"), 503)
        return _file(found, request) if isinstance(found, File) else _json(found)

    return answer


async def _unless_closing(work: Coroutine[Any, Any, Any], closing: asyncio.Event) -> Any:
    """Await work; a server that stops does not wait for it. Raises RefusedError then."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(closing.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise RefusedError(503, "closing", "the server is stopping; ask again when it runs")
    finally:
        stopping.cancel()
        working.cancel()


async def _found(desk: Desk, endpoint: Endpoint, request: Request) -> Any:
    """Take in the request's body, decode it and run the endpoint."""
    taken: bytes | Path = b""
    if endpoint.body is Path:
        taken = desk.incoming / uuid.uuid4().hex
    elif endpoint.body is not None:
        taken = await request.body()
    try:
        if isinstance(taken, Path):
            await _take_in(request, taken)
        call = endpoint.decode(request.path_params, request.query_params, taken)
        return await run_sync(endpoint.run, desk, call, abandon_on_cancel=True)
    finally:
        if isinstance(taken, Path):
            taken.unlink(missing_ok=True)


async def _take_in(request: Request, path: Path) -> None:
    """Write a body to a file: it may be larger than the memory that a server should take."""
    waiting = bytearray()
    with path.open("wb") as file:
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= WRITTEN_BYTES:
                await run_in_threadpool(file.write, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(file.write, bytes(waiting))


def _file(found: File, request: Request) -> Response:
    headers = {}
    if found.name is not None:
        plain = re.sub(r'[^\x20-\x7e]|["\\\\?%]', "_", found.name)  # for programs that do not read the second form
        encoded = quote(found.name, safe="", errors="replace")
        headers["Content-Disposition"] = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
    if found.tag is not None:
        tag = f'"{sha256(found.tag.encode()).hexdigest()[:16]}"'
        headers |= {"ETag": tag, "Cache-Control": "private, max-age=3600"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(found.content, media_type=found.media, headers=headers)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


async def _page(request: Request) -> Response:
    return _served("index.html", request)


async def _asset(request: Request) -> Response:
    return _served(request.path_params["path"], request)


def _served(name: str, request: Request) -> Response:
    """Return a file of the package; names are looked up, never joined to a path."""
    path = _assets().get(name)
    if path is None:
        return _json(shapes.Problem(f"{name[:80]}: no such file of the page", "unknown"), 404)
    content = path.read_bytes()
    tag = f'"{sha256(content).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    media = mimetypes.guess_type(name)[0] or "application/octet-stream"
    media = {"js": "text/javascript", "woff2": "font/woff2"}.get(name.rsplit(".", 1)[-1], media)
    return Response(content, media_type=media, headers=headers)


@cache
def _assets() -> dict[str, Any]:
    """Return the page's files by name."""
    found: dict[str, Any] = {}
    root = resources.files("overflight.station.serve") / "assets"
    waiting = [("", root)]
    while waiting:
        prefix, folder = waiting.pop()
        for one in folder.iterdir():
            if one.is_dir():
                waiting.append((f"{prefix}{one.name}/", one))
            else:
                found[prefix + one.name] = one
    return found


async def _healthy(request: Request) -> Response:
    return Response("live\n", media_type="text/plain")


async def _unknown(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _json(shapes.Problem(f"{request.method} {request.url.path[:80]}: not an endpoint", "unknown"), status)


async def _broken(request: Request, error: Exception) -> Response:
    """Answer in the form of every other error; the server's log has the reason."""
    return _json(shapes.Problem("an error of the server itself; its log has the reason", "server"), 500)


async def _log_in(guard: Guard, request: Request, port: int) -> Response:
    try:
        given = decode_json(await request.body(), shapes.Login)
    except (msgspec.DecodeError, ClientDisconnect):
        return _json(shapes.Problem("expected the token", "invalid"), 422)
    if not guard.allows(given.token):
        await asyncio.sleep(0.5)
        return _json(shapes.Problem("this is not the server's token", "token"), 401)
    answer = _json(shapes.Done())
    secure = request.url.scheme == "https"
    answer.set_cookie(
        cookie_name(port), given.token, max_age=COOKIE_S, httponly=True, samesite="strict", secure=secure, path="/"
    )
    return answer


def serve(desk: Desk) -> None:
    """Serve until a signal; open streams end with it. Raises RefusedError where the port cannot be taken."""
    import uvicorn

    app, board = make_app(desk)

    class Server(uvicorn.Server):
        """Ends the event streams as soon as it is asked to stop."""

        def handle_exit(self, sig: int, frame: Any) -> None:
            board.closing.set()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        host=desk.settings.host,
        port=desk.settings.port,
        log_level="warning",
        access_log=False,  # addresses may carry what people searched for
        server_header=False,
        timeout_graceful_shutdown=1,
        limit_concurrency=400,
    )
    try:
        Server(config).run()
    except SystemExit as error:
        where = f"{desk.settings.host}:{desk.settings.port}"
        raise RefusedError(409, "port", f"{where} cannot be taken; give another with --port") from error
