"""Whether the settings name a source's columns by words that its reader knows."""

from collections.abc import Iterator

from agent.pbx.asterisk.cdr import UnknownColumns, columns_of
from agent.pbx.asterisk.cel import strange_columns
from config.settings import Settings, SourceKind


def column_problems(settings: Settings) -> Iterator[str]:
    """A sentence for every source whose columns cannot be meant so, with where they stand in the settings."""
    for pbx_number, pbx in enumerate(settings.pbx):
        for number, source in enumerate(pbx.sources):
            if source.columns:
                problem = _problem(source.kind, source.columns)
                if problem is not None:
                    yield f"pbx[{pbx_number}].sources[{number}].columns: {problem}"


def _problem(kind: SourceKind, columns: tuple[str, ...]) -> str | None:
    match kind:
        case SourceKind.CEL_CSV:
            return strange_columns(columns)
        case SourceKind.CDR_CSV:
            try:
                columns_of(",".join(columns))
            except UnknownColumns as exc:
                return str(exc)
    return None
