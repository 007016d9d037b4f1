"""Which of Asterisk's modules write a source, and whether they are loaded: CDRs can be on, and nobody writes them."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from config.settings import SourceKind, SourceSettings

# Those that can write it, the usual one first; a file of cdr_csv and one of cdr_custom are told by their directory.
_WRITERS: Final[Mapping[SourceKind, tuple[str, ...]]] = {
    SourceKind.CDR_CSV: ("cdr_csv", "cdr_custom"),
    SourceKind.CDR_MARIADB: ("cdr_adaptive_odbc", "cdr_odbc", "cdr_mysql"),
    SourceKind.CDR_SQLITE: ("cdr_sqlite3_custom",),
    SourceKind.CEL_CSV: ("cel_custom",),
    SourceKind.CEL_MARIADB: ("cel_odbc",),
}
_TRUE: Final = frozenset({"yes", "true", "y", "t", "1", "on"})
_BY_DIRECTORY: Final = {"cdr-csv": ("cdr_csv",), "cdr-custom": ("cdr_custom",)}


def writers_of(source: SourceSettings) -> tuple[str, ...]:
    """The modules, without `.so`; none for what Asterisk's core writes itself."""
    if source.kind is SourceKind.CDR_CSV and source.path is not None:
        return _BY_DIRECTORY.get(source.path.parent.name, _WRITERS[SourceKind.CDR_CSV])
    return _WRITERS.get(source.kind, ())


def not_loaded(source: SourceSettings) -> str:
    """The sentence for a source that no loaded module writes."""
    module = f"{writers_of(source)[0]}.so"
    return (
        f"Asterisk has loaded no module that writes {source.called}; in modules.conf, section [modules], "
        f"write load = {module}, take any noload = {module} out, then `module load {module}`"
    )


def left_out(lines: Iterable[str], sources: Collection[SourceSettings]) -> dict[str, str]:
    """Of the sources by name, the sentence for those that no module writes after the next start, by modules.conf."""
    told = [(key.strip().lower(), value.removeprefix(">").strip()) for key, _, value in _assignments(lines)]
    loads_all = any(key == "autoload" and value.lower() in _TRUE for key, value in told)
    refused = {_plain(value) for key, value in told if key == "noload"}
    wanted = {_plain(value) for key, value in told if key in {"load", "preload", "require", "preload-require"}}

    def comes(module: str) -> bool:
        return module not in refused and (loads_all or module in wanted)

    return {
        source.called: not_loaded(source)
        for source in sources
        if writers_of(source) and not any(comes(module) for module in writers_of(source))
    }


def _assignments(lines: Iterable[str]) -> Iterable[tuple[str, str, str]]:
    return (parts for parts in (line.partition("=") for line in lines) if parts[1])


def _plain(module: str) -> str:
    return module.removesuffix(".so")
