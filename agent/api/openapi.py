"""The services' API for machines, as an OpenAPI 3.1 document."""

from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agent.api.messages import (
    ContextPatch,
    Interaction,
    LiveCalls,
    NextCall,
    Problem,
    Receipt,
    Task,
    TaskChange,
)
from agent.api.problems import MEDIA_TYPE
from agent.calls.context import CallContext, CallState

Json = dict[str, Any]  # Any: JSON

_REF: Final = "#/components/schemas/{model}"
_MODELS: Final = (ContextPatch, Interaction, LiveCalls, NextCall, Problem, Receipt, Task, TaskChange, CallContext)
_WHY: Final = {
    400: "The body is no JSON",
    401: "No token, or none of a service's",
    403: "The service may not do this: it reads only, or the tenant is none of its own",
    404: "There is no such call or task, or it is another tenant's",
    405: "The path knows no such method",
    408: "The body took too long",
    412: "The context has changed since the revision in If-Match",
    413: "More than a bound in [live] allows",
    415: "The body is no application/json",
    422: "A member, parameter or header is not what it has to be; `field` names it",
    429: "The service waits in too many requests at once",
    503: "Nothing was kept: the agent is busy, or its database cannot be written; send it again",
}
_TRACE: Final[Json] = {
    "traceparent": {
        "schema": {"type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$"},
        "description": "W3C trace context: the call's span, the parent of the service's own; also in the context",
    }
}
_READING: Final = (401, 403, 404, 405, 422, 429, 503)
_WRITING: Final = (400, 401, 403, 404, 405, 408, 412, 413, 415, 422, 503)


def document() -> Json:
    """The document."""
    _, schemas = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sentiric Edge Agent: live context",
            "version": version("sentiric-edge-agent"),
            "description": "What services share of a call while it lasts, and add once it is over.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": _paths(),
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "edge-agent services add NAME"}
            },
        },
    }


def _paths() -> Json:
    tenant = _query("tenant", {"type": "string", "minLength": 1, "maxLength": 255}, "Only this tenant's calls")
    after = _query("after", {"type": "string", "minLength": 1, "maxLength": 255}, "What the last answer told")
    wait = _query("wait", {"type": "number", "minimum": 0, "maximum": 60, "default": 30}, "Seconds")
    call = _query("call", {"type": "string", "minLength": 1, "maxLength": 255}, "Only this call's")
    state = _query("state", {"type": "string", "enum": list(CallState)}, "Only calls in this state")
    resume = _header("Last-Event-ID", "Go on after this event")
    sid = {"name": "sid", "in": "path", "required": True, "schema": {"type": "string"}, "description": "The call_sid"}
    task = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": "The task's id; `top` is the one on top",
    }
    one_or_many = {"oneOf": [_ref(Interaction), {"type": "array", "items": _ref(Interaction), "minItems": 1}]}
    transcript = {"oneOf": [{"type": "array", "items": _ref(Interaction)}, {"type": "null"}]}
    return {
        "/v1/calls": {"get": _read("Live calls, the oldest first", LiveCalls, [tenant, state])},
        "/v1/calls/next": {"get": _read("Wait for the next call that begins", NextCall, [tenant, wait, after])},
        "/v1/events": {"get": _stream("Server-sent events", [tenant, call, resume])},
        "/v1/calls/{sid}/context": {
            "parameters": [sid],
            "get": _read("A call's context, live or over", CallContext, [], etag=True),
            "patch": _write("Merge a patch", _ref(ContextPatch), kind="application/merge-patch+json"),
        },
        "/v1/calls/{sid}/tasks": {"parameters": [sid], "post": _write("Push a task", _ref(Task), status=201)},
        "/v1/calls/{sid}/tasks/{id}": {
            "parameters": [sid, task],
            "patch": _write("Change a task", _ref(TaskChange), kind="application/merge-patch+json"),
            "delete": _write("Pop a task, wherever it stands", None),
        },
        "/v1/calls/{sid}/interactions": {
            "parameters": [sid],
            "post": _write("Append one interaction or several", one_or_many, status=201),
        },
        "/v1/calls/{sid}/transcript": {
            "parameters": [sid],
            "put": _write("Say what the transcript is; null: what was said", transcript),
        },
    }


def _read(summary: str, model: type[BaseModel], parameters: list[Json], *, etag: bool = False) -> Json:
    headers = _TRACE if model is NextCall else {}
    if etag:
        headers = {"ETag": {"schema": {"type": "string"}, "description": "The revision"}, **_TRACE}
    content = {"application/json": {"schema": _ref(model)}}
    answers: Json = {"200": {"description": "As it is", "headers": headers, "content": content}}
    if etag:
        parameters = [*parameters, _header("If-None-Match", "An ETag; 304 if the context is still so")]
        answers["304"] = {"description": "It has not changed"}
    return {"summary": summary, "parameters": parameters, "responses": answers | _problems(_READING)}


def _stream(summary: str, parameters: list[Json]) -> Json:
    told = (
        "`call.started`, `call.changed`, `call.ended`, `context.changed` with call_sid, tenant_id, revision, state, at "
        "and merged_into, if the call goes on in another; `resync` when some are not known any more"
    )
    content = {"text/event-stream": {"schema": {"type": "string"}}}
    answers = {"200": {"description": told, "content": content}} | _problems(_READING)
    return {"summary": summary, "parameters": parameters, "responses": answers}


def _write(summary: str, schema: Json | None, *, status: int = 200, kind: str = "application/json") -> Json:
    parameters = [
        _header("If-Match", "The ETag of the context that the write is for"),
        _header("Idempotency-Key", "Sent again with the same key, a write is answered again, not done again"),
    ]
    receipt = {
        "description": "Kept, and durable",
        "headers": {"ETag": {"schema": {"type": "string"}, "description": "The revision with this write"}, **_TRACE},
        "content": {"application/json": {"schema": _ref(Receipt)}},
    }
    told: Json = {"summary": summary, "parameters": parameters}
    if schema is not None:
        told["requestBody"] = {"required": True, "content": {kind: {"schema": schema}}}
    return told | {"responses": {str(status): receipt} | _problems(_WRITING)}


def _problems(statuses: tuple[int, ...]) -> Json:
    content = {MEDIA_TYPE: {"schema": _ref(Problem)}}
    return {str(status): {"description": _WHY[status], "content": content} for status in statuses}


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": _REF.format(model=model.__name__)}


def _query(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _header(name: str, description: str) -> Json:
    schema = {"type": "string"}
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}
