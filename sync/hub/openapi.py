"""What the OpenAPI document says beyond what FastAPI finds out: bodies that the endpoints read themselves, problems."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter

from sync.hub.batches import body_schema
from sync.hub.problems import MEDIA_TYPE
from sync.wire import Problem

Json = dict[str, Any]  # Any: JSON

_TEMPLATE: Final = "#/components/schemas/{model}"
_BATCH_SCHEMA, _BATCH_PARTS = body_schema()
_PROBLEM: Final = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
_WAIT: Final = {"headers": {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds"}}}

# Any endpoint may answer so; docs/hub.md says what a site does then.
PROBLEMS: Final[dict[int | str, Json]] = {
    400: {"description": "The request as a whole is not what the wire says"} | _PROBLEM,
    401: {"description": "The credential or code is unknown, revoked, used or expired"} | _PROBLEM,
    403: {"description": "The site may not do this"} | _PROBLEM,
    404: {"description": "There is no such path"} | _PROBLEM,
    405: {"description": "The path knows no such method"} | _PROBLEM,
    408: {"description": "The body took too long"} | _PROBLEM,
    409: {"description": "Another installation speaks for the site, or the centre went back"} | _PROBLEM | _WAIT,
    413: {"description": "The body is too large"} | _PROBLEM,
    415: {"description": "The body is packed or written in a way the hub does not read"} | _PROBLEM,
    422: {"description": "A member or parameter is missing or not what the wire says"} | _PROBLEM,
    429: {"description": "Too much at once"} | _PROBLEM | _WAIT,
    503: {"description": "The hub is busy, or its database away"} | _PROBLEM | _WAIT,
}
BATCH: Final[Json] = {
    "requestBody": {
        "required": True,
        "description": "May be packed: Content-Encoding zstd or gzip",
        "content": {"application/json": {"schema": _BATCH_SCHEMA}},
    }
}


def body_of(message: type[BaseModel]) -> Json:
    """The request body of an endpoint that reads this message."""
    schema = message.model_json_schema(ref_template=_TEMPLATE)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def document(app: FastAPI) -> Json:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        told = get_openapi(title=app.title, version=app.version, routes=app.routes, description=_ABOUT)
        schemas = told.setdefault("components", {}).setdefault("schemas", {})
        schemas |= _BATCH_PARTS
        schemas["Problem"] = TypeAdapter(Problem).json_schema(ref_template=_TEMPLATE)
        app.openapi_schema = told
    return app.openapi_schema


_ABOUT: Final = (
    "Where sites bring their calls. Receivers ignore unknown members; members that are missing have their defaults. "
    "Errors are problem+json with a code."
)
