"""The configuration of the stage's Asterisk, on top of the rig's: phones, trunks and dialplan of every scenario."""

from collections.abc import Iterable

from tests.pbx.stage.exchange import Address
from tests.pbx.stage.scenario import PHONE_NAMES, PHONES, TRUNK, Scenario

PHONE_CONTEXT = "internal-stage"
TRUNK_CONTEXT = "from-trunk-stage"
RING_SECONDS = 20

_GENERAL = f"""
[{TRUNK_CONTEXT}]
exten => _902165551XXX,1,Dial(PJSIP/${{EXTEN:-4}},{RING_SECONDS},tT)
 same => n,Hangup()

[{PHONE_CONTEXT}]
include => parkedcalls
exten => _1XXX,1,Dial(PJSIP/${{EXTEN}},{RING_SECONDS},tT)
 same => n,Hangup()
exten => _0X.,1,Dial(PJSIP/${{EXTEN}}@{TRUNK},{RING_SECONDS},tT)
 same => n,Hangup()
exten => _8XXX,1,ConfBridge(${{EXTEN}},,stage_user)
 same => n,Hangup()
exten => _*81XXX,1,PickupChan(PJSIP/${{EXTEN:2}},p)
 same => n,Hangup()
"""

# Appended below [general] of the rig's own file.
_FEATURES = """pickupexten=*8
featuredigittimeout=1500
transferdigittimeout=3
atxfernoanswertimeout=3
atxferdropcall=no
atxferloopdelay=2
atxfercallbackretries=1
[featuremap]
blindxfer=#1
atxfer=*2
"""
_CONFBRIDGE = """[stage_user]
type=user
quiet=yes
announce_only_user=no
announce_join_leave=no
"""
_VOICEMAIL = "[general]\nformat=wav\nattach=no\nmaxsilence=0\nminsecs=0\n[default]\n"
_PARKING = "[general]\nparkeddynamic=no\n"


def stage_configuration(
    scenarios: Iterable[Scenario], *, phones: Address, trunks: dict[str, Address]
) -> dict[str, str]:
    """File name to what is to be appended to the rig's own file of that name."""
    scenarios = list(scenarios)
    texts = {
        "pjsip.conf": "".join([*_trunks(trunks), *(_phones(scenario, phones) for scenario in scenarios)]),
        "extensions.conf": _GENERAL + "".join(_dialplan(scenario) for scenario in scenarios),
        "features.conf": _FEATURES,
        "confbridge.conf": _CONFBRIDGE,
        "voicemail.conf": _VOICEMAIL,
        "res_parking.conf": _PARKING,
        "followme.conf": "[general]\n",
    }
    for scenario in scenarios:
        for name, text in scenario.files.items():
            texts[f"{name}.conf"] = texts.get(f"{name}.conf", "") + "\n" + scenario.text(text)
    return texts


def _trunks(trunks: dict[str, Address]) -> list[str]:
    return [
        f"""
[{name}](line)
context={TRUNK_CONTEXT}
aors={name}

[{name}]
type=aor
contact=sip:{host}:{port}

[{name}-from]
type=identify
endpoint={name}
match={host}
"""
        for name, (host, port) in trunks.items()
    ]


def _phones(scenario: Scenario, phones: Address) -> str:
    host, port = phones
    return "".join(
        f"""
[1{scenario.digits}{number}](line)
context={PHONE_CONTEXT}
aors=1{scenario.digits}{number}
callerid={PHONE_NAMES[number - 1]} <1{scenario.digits}{number}>
named_call_group=g{scenario.digits}
named_pickup_group=g{scenario.digits}

[1{scenario.digits}{number}]
type=aor
contact=sip:1{scenario.digits}{number}@{host}:{port}
"""
        for number in PHONES
    )


def _dialplan(scenario: Scenario) -> str:
    parts = ""
    if scenario.internal:
        parts += f"\n[{PHONE_CONTEXT}]\n{scenario.text(scenario.internal)}\n"
    if scenario.inbound:
        parts += f"\n[{TRUNK_CONTEXT}]\n{scenario.text(scenario.inbound)}\n"
    return parts
