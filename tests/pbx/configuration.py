"""The configuration files of the rig's Asterisk, made from its ports and directories; pure text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from tests.pbx import town
from tests.pbx.town import Tenant

# Modules that would listen on ports of their own, need a library's daemon, or cost start-up time for nothing.
UNUSED_MODULES = """
chan_iax2 chan_unistim chan_motif chan_console chan_audiosocket chan_websocket pbx_dundi pbx_lua pbx_ael
chan_sip chan_mgcp chan_skinny chan_alsa chan_oss chan_phone app_getcpeid
res_calendar_caldav res_calendar_ews res_calendar_exchange res_calendar_icalendar
res_xmpp res_snmp res_hep res_hep_pjsip res_hep_rtcp res_statsd res_prometheus res_phoneprov
res_pjsip_phoneprov_provider res_corosync res_calendar res_config_ldap res_config_pgsql res_config_odbc
res_config_sqlite3 cdr_pgsql cdr_odbc cdr_adaptive_odbc cdr_radius cdr_tds cdr_sqlite3_custom cdr_csv
cel_pgsql cel_odbc cel_radius cel_tds cel_sqlite3_custom res_adsi app_adsiprog app_voicemail_odbc
app_alarmreceiver app_sla app_festival app_jack res_smdi res_stun_monitor res_resolver_unbound
res_stir_shaken res_pjsip_stir_shaken res_geolocation res_pjsip_geolocation res_websocket_client
"""

# Our name of each column, in order, and what Asterisk shall write there.
CEL_COLUMNS = {
    "eventtype": "eventtype",
    "eventtime": "eventtime",
    "cid_name": "CALLERID(name)",
    "cid_num": "CALLERID(num)",
    "cid_ani": "CALLERID(ANI)",
    "cid_rdnis": "CALLERID(RDNIS)",
    "cid_dnid": "CALLERID(DNID)",
    "exten": "CHANNEL(exten)",
    "context": "CHANNEL(context)",
    "channel": "CHANNEL(channame)",
    "appname": "CHANNEL(appname)",
    "appdata": "CHANNEL(appdata)",
    "accountcode": "CHANNEL(accountcode)",
    "uniqueid": "CHANNEL(uniqueid)",
    "linkedid": "CHANNEL(linkedid)",
    "peer": "BRIDGEPEER",
    "userfield": "CHANNEL(userfield)",
    "extra": "eventextra",
}
# What docs/asterisk.md recommends to tell of.
CEL_APPS = (
    "dial,queue,followme,retrydial,page,park,confbridge,meetme,voicemail,stasis,audiosocket,busy,congestion,"
    "playback,background,read"
)
CDR_COLUMNS = {
    "accountcode": "CDR(accountcode)",
    "src": "CDR(src)",
    "dst": "CDR(dst)",
    "dcontext": "CDR(dcontext)",
    "clid": "CDR(clid)",
    "channel": "CDR(channel)",
    "dstchannel": "CDR(dstchannel)",
    "lastapp": "CDR(lastapp)",
    "lastdata": "CDR(lastdata)",
    "start": "CDR(start,u)",
    "answer": "CDR(answer,u)",
    "end": "CDR(end,u)",
    "duration": "CDR(duration,f)",
    "billsec": "CDR(billsec,f)",
    "disposition": "CDR(disposition)",
    "uniqueid": "CDR(uniqueid)",
    "linkedid": "CDR(linkedid)",
    "sequence": "CDR(sequence)",
}


PRODUCT_USER = "sentiric"
PRODUCT_SECRET = "gizli-soz"
DRIVER_USER = "driver"
DRIVER_SECRET = "surucu"


@dataclass(frozen=True, slots=True)
class Ports:
    ami: int
    sip: int
    phones: int
    trunks: dict[str, int]
    """Where each trunk's far end listens, by tenant name."""
    rtp_start: int
    rtp_end: int


@dataclass(frozen=True, slots=True)
class Options:
    """What a test may want otherwise; the defaults are what the product recommends."""

    timestamp_events: bool = True
    event_filter: str | None = "!Event: VarSet"
    read: str = "system,call,agent,dialplan,cdr,reporting,user"
    write: str = "reporting"
    write_timeout_ms: int = 5000
    system_name: str | None = None
    channel_variables: str | None = None
    """Told with every event about a channel."""
    appended: Mapping[str, str] = field(default_factory=dict)
    """More text for files, by name, at the end of each; files the rig has not are made of it."""


def configuration(*, home: PurePosixPath, ports: Ports, options: Options) -> dict[str, str]:
    """File name to text. `home` is the instance's directory as seen from inside the root."""
    files = {
        "asterisk.conf": _asterisk(home, options),
        "modules.conf": _modules(),
        "logger.conf": "[general]\ndateformat=%F %T.%6q\n[logfiles]\nmessages => notice,warning,error\n",
        "manager.conf": _manager(ports, options),
        "rtp.conf": f"[general]\nrtpstart={ports.rtp_start}\nrtpend={ports.rtp_end}\nicesupport=no\n",
        "pjsip.conf": _pjsip(ports),
        "extensions.conf": _extensions(),
        "queues.conf": _queues(),
        "musiconhold.conf": f"[general]\n[default]\nmode=files\ndirectory={home}/moh\n",
        "cdr.conf": "[general]\nenable=yes\nunanswered=yes\ncongestion=yes\n[csv]\nusegmtime=yes\n",
        "cdr_custom.conf": f"[mappings]\nMaster.csv => {_mapping(CDR_COLUMNS)}\n",
        "cdr_manager.conf": (
            "[general]\nenabled=yes\n[mappings]\nlinkedid => Linkedid\nsequence => Sequence\n"
            "peeraccount => PeerAccount\n"
        ),
        "cel.conf": f"[general]\nenable=yes\napps={CEL_APPS}\nevents=ALL\n[manager]\nenabled=yes\n",
        "cel_custom.conf": f"[mappings]\nMaster.csv => {_mapping(CEL_COLUMNS)}\n",
        "features.conf": "[general]\n",
        "indications.conf": "[general]\ncountry=tr\n[tr]\ndescription=Turkey\nringcadence=2000,4000\n"
        "dial=450\nbusy=450/500,0/500\nring=450/2000,0/4000\ncongestion=450/200,0/200\n",
        "acl.conf": "",
        "stasis.conf": "",
        "udptl.conf": "[general]\n",
        "ccss.conf": "[general]\n",
        "confbridge.conf": "[general]\n",
        "cli_permissions.conf": "",
        "http.conf": "[general]\nenabled=no\n",
    }
    return files | {name: files.get(name, "") + text for name, text in options.appended.items()}


def _mapping(columns: dict[str, str]) -> str:
    return ",".join("${CSV_QUOTE(${" + source + "})}" for source in columns.values())


def _asterisk(home: PurePosixPath, options: Options) -> str:
    name = f"systemname={options.system_name}\n" if options.system_name else ""
    return (
        "[directories](!)\n"
        f"astetcdir => {home}/etc\n"
        f"astvarlibdir => {home}/lib\n"
        f"astdbdir => {home}/lib\n"
        f"astkeydir => {home}/lib\n"
        f"astcachedir => {home}/lib\n"
        f"astspooldir => {home}/spool\n"
        f"astrundir => {home}/run\n"
        f"astlogdir => {home}/log\n"
        "astdatadir => /usr/share/asterisk\n"
        "astagidir => /usr/share/asterisk/agi-bin\n"
        f"[options]\n{name}"
    ).replace("(!)", "")


def _modules() -> str:
    lines = "".join(f"noload => {name}.so\n" for name in UNUSED_MODULES.split())
    return f"[modules]\nautoload=yes\n{lines}"


def _manager(ports: Ports, options: Options) -> str:
    stamps = "yes" if options.timestamp_events else "no"
    variables = f"channelvars={options.channel_variables}\n" if options.channel_variables else ""
    event_filter = f"eventfilter={options.event_filter}\n" if options.event_filter else ""
    return f"""[general]
enabled=yes
webenabled=no
port={ports.ami}
bindaddr=127.0.0.1
timestampevents={stamps}
{variables}
[{PRODUCT_USER}]
secret={PRODUCT_SECRET}
deny=0.0.0.0/0.0.0.0
permit=127.0.0.1/255.255.255.255
read={options.read}
write={options.write}
writetimeout={options.write_timeout_ms}
{event_filter}
[{DRIVER_USER}]
secret={DRIVER_SECRET}
deny=0.0.0.0/0.0.0.0
permit=127.0.0.1/255.255.255.255
read=system
write=system,call,originate,reporting,command
"""


def _pjsip(ports: Ports) -> str:
    head = f"""[global]
type=global
endpoint_identifier_order=ip,username
user_agent=rig

[system]
type=system
timer_t1=500

[udp]
type=transport
protocol=udp
bind=127.0.0.1:{ports.sip}

[line](!)
type=endpoint
transport=udp
disallow=all
allow=alaw,ulaw
direct_media=no
dtmf_mode=info
timers=no
media_address=127.0.0.1
bind_rtp_to_media_address=yes
"""
    parts = [head]
    for tenant in town.TENANTS:
        parts.append(f"""
[{tenant.trunk}](line)
context={tenant.inbound_context}
aors={tenant.trunk}

[{tenant.trunk}]
type=aor
contact=sip:{tenant.trunk_host}:{ports.trunks[tenant.name]}

[{tenant.trunk}-from]
type=identify
endpoint={tenant.trunk}
match={tenant.trunk_host}
""")
        for behaviour in town.BEHAVIOURS:
            extension = tenant.extension(behaviour)
            name = tenant.phone_names[behaviour - 1]
            contact = (
                "" if behaviour == town.NOT_THERE else f"contact=sip:{extension}@{town.PHONES_HOST}:{ports.phones}\n"
            )
            parts.append(f"""
[{extension}](line)
context={tenant.internal_context}
aors={extension}
callerid={name} <{extension}>

[{extension}]
type=aor
max_contacts=1
{contact}""")
    return "".join(parts)


def _extensions() -> str:
    return "[general]\nstatic=yes\nwriteprotect=yes\nclearglobalvars=no\n" + "".join(
        _inbound(tenant) + _internal(tenant) for tenant in town.TENANTS
    )


# The rig's own name for a call travels in a SIP header and stands in CEL's userfield from the second event on, so
# that what was intended can be found beside what happened.
_NAME_THE_CALL = "Set(CHANNEL(userfield)=${PJSIP_HEADER(read,X-Rig-Call)})"


def _inbound(tenant: Tenant) -> str:
    ring = town.INBOUND_RING_SECONDS
    phones = "".join(
        f"exten => {tenant.did(behaviour)},1,{_NAME_THE_CALL}\n"
        f" same => n,Dial(PJSIP/{tenant.extension(behaviour)},{ring})\n"
        " same => n,Hangup()\n"
        for behaviour in town.BEHAVIOURS
    )
    group_with_answer = _group(tenant, (town.RINGS_FOR_EVER, town.ANSWERS_LATER, town.BUSY))
    group_without = _group(tenant, (town.RINGS_FOR_EVER, town.BUSY, town.DECLINES))
    return f"""
[{tenant.inbound_context}]
{phones}
exten => {tenant.did(town.DID_GROUP_ONE_ANSWERS)},1,{_NAME_THE_CALL}
 same => n,Dial({group_with_answer},{town.GROUP_RING_SECONDS})
 same => n,Hangup()

exten => {tenant.did(town.DID_GROUP_NOBODY)},1,{_NAME_THE_CALL}
 same => n,Dial({group_without},{town.GROUP_RING_SECONDS})
 same => n,Hangup()

exten => {tenant.did(town.DID_QUEUE)},1,{_NAME_THE_CALL}
 same => n,Answer()
 same => n,Queue({tenant.queue("sales")})
 same => n,Hangup()

exten => {tenant.did(town.DID_QUEUE_NOBODY)},1,{_NAME_THE_CALL}
 same => n,Answer()
 same => n,Queue({tenant.queue("night")})
 same => n,Hangup()

exten => {tenant.did(town.DID_QUEUE_GIVES_UP)},1,{_NAME_THE_CALL}
 same => n,Answer()
 same => n,Queue({tenant.queue("night")},,,,{town.QUEUE_PATIENCE_SECONDS})
 same => n,Hangup()

exten => {tenant.did(town.DID_QUEUE_AGENT_HANGS_UP)},1,{_NAME_THE_CALL}
 same => n,Answer()
 same => n,Queue({tenant.queue("support")})
 same => n,Hangup()

exten => {tenant.did(town.DID_IVR)},1,{_NAME_THE_CALL}
 same => n,Goto(ivr-{tenant.name},s,1)

; Some trunks send the number with a plus.
exten => _+X.,1,Goto(${{EXTEN:1}},1)

[ivr-{tenant.name}]
exten => s,1,Answer()
 same => n,Background(basic-pbx-ivr-main)
 same => n,WaitExten(10)
 same => n,Hangup()
exten => 1,1,Dial(PJSIP/{tenant.extension(town.ANSWERS_SOON)},{ring})
 same => n,Hangup()
exten => 2,1,Queue({tenant.queue("sales")})
 same => n,Hangup()
exten => t,1,Hangup()
exten => i,1,Hangup()
"""


def _internal(tenant: Tenant) -> str:
    show_number = (
        f" same => n,Set(CALLERID(num)={tenant.outbound_number})\n" if tenant.outbound_number is not None else ""
    )
    out = (
        f"{show_number} same => n,Dial(PJSIP/${{EXTEN}}@{tenant.trunk},{town.OUTBOUND_RING_SECONDS})\n"
        " same => n,Hangup()\n"
    )
    first_digit = tenant.extension_base // 100
    return f"""
[{tenant.internal_context}]
exten => _{first_digit}XX,1,{_NAME_THE_CALL}
 same => n,Dial(PJSIP/${{EXTEN}},{town.INTERNAL_RING_SECONDS})
 same => n,Hangup()
exten => _0X.,1,{_NAME_THE_CALL}
{out}exten => _+X.,1,{_NAME_THE_CALL}
{out}"""


def _group(tenant: Tenant, behaviours: tuple[int, ...]) -> str:
    return "&".join(f"PJSIP/{tenant.extension(behaviour)}" for behaviour in behaviours)


def _queues() -> str:
    parts = ["[general]\npersistentmembers=no\nautofill=yes\nshared_lastcall=no\n"]
    for tenant in town.TENANTS:
        for kind, members in (
            ("sales", (town.ANSWERS_SOON, town.ANSWERS_LATER)),
            ("support", (town.HANGS_UP_AFTER_A_WHILE, town.HANGS_UP_LATER)),
            ("night", (town.RINGS_FOR_EVER,)),
        ):
            parts.append(f"\n[{tenant.queue(kind)}]\nmusicclass=default\nstrategy=rrmemory\ntimeout=5\nretry=1\n")
            parts.append("ringinuse=yes\njoinempty=yes\nleavewhenempty=no\n")
            parts.extend(
                f"member => PJSIP/{tenant.extension(member)},0,{tenant.phone_names[member - 1]}\n" for member in members
            )
    return "".join(parts)
