"""What a site may say besides batches, bounded member by member; unknown members are let pass."""

from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sync.hub.problems import Invalid, Malformed
from sync.records import Greeting

# PostgreSQL has no text with NUL.
TEXT: Final = r"^[^\u0000]*$"

Message = TypeVar("Message", bound=BaseModel)


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)


class GreetingMessage(_Message):
    """A site begins, or shows that it is still there."""

    site: Annotated[str, Field(min_length=1, max_length=64, pattern=TEXT)]
    agent_version: Annotated[str, Field(max_length=64, pattern=TEXT)]
    holder: Annotated[str, Field(min_length=1, max_length=128, pattern=TEXT)]
    host: Annotated[str, Field(max_length=255, pattern=TEXT)]
    lease: Annotated[str | None, Field(max_length=256, pattern=TEXT, repr=False)] = None
    lease_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    versions: Annotated[list[int], Field(max_length=32)] = [1]

    def greeting(self) -> Greeting:
        """The same as both sides know it."""
        return Greeting(self.site, self.agent_version, self.holder, self.host, self.lease, self.lease_seconds)


class EnrolmentMessage(_Message):
    """A site is to be born, or born again."""

    code: Annotated[str, Field(min_length=1, max_length=64, pattern=TEXT, repr=False)]
    site: Annotated[str, Field(min_length=1, max_length=64, pattern=TEXT)] | None = None
    host: Annotated[str, Field(max_length=255, pattern=TEXT)] = ""


def read(kind: type[Message], body: bytes) -> Message:
    """The body as this message. Raises Malformed or Invalid, naming the member and never its value."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise Malformed("the body is no JSON") from None
        where = ".".join(str(step) for step in first["loc"]) or "the body"
        raise Invalid(f"{where}: {first['msg']}") from None
