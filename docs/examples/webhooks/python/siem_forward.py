"""Forwards every event to a SIEM as CEF in syslog (RFC 5424) over TCP (RFC 6587, counted octets).

    SIEM_ADDRESS=siem.example.com:601 WEBHOOK_SECRET_FILE=secret python3 siem_forward.py

A SIEM that cannot be reached makes the request fail with 503, so that the sender keeps the events meanwhile. What TCP
took counts as forwarded: syslog has no answer that would say more.
"""

import os
import socket
from datetime import datetime

from verdict_webhook import Dispatcher, serve

HOST, _, PORT = os.environ["SIEM_ADDRESS"].rpartition(":")
# Severity of CEF (0 to 10) and of syslog (RFC 5424: 2 critical, 3 error, 6 informational).
INFORMATIONAL = {"firewall_started", "firewall_stopped", "connection_attempt", "ip_unblocked", "distributed_attack_ended"}
ERROR = {"block_error", "unblock_error", "state_degraded"}
FACILITY = 13  # log audit

dispatcher = Dispatcher()


def severities(event_type):
    if event_type in INFORMATIONAL:
        return 3, 6
    return (6, 3) if event_type in ERROR else (9, 2)


def escaped(value):
    """As CEF wants values: whoever is logged shall not write a field, or a line, of his own."""
    return str(value).replace("\\", "\\\\").replace("=", "\\=").replace("\r", "\\r").replace("\n", "\\n")


def header(value):
    """The same for a field of the head, where the bar is what parts fields."""
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\r", " ").replace("\n", " ")


def milliseconds(timestamp):
    """CEF takes milliseconds since 1970 and some forms of its own, not RFC 3339."""
    # fromisoformat() takes the Z itself from Python 3.11 on
    return round(datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp() * 1000)


def address(value, v4, v6, label):
    """`src` and `dst` of CEF:0 are IPv4; IPv6 has fields of its own."""
    if value is None or ":" not in value:
        return {v4: value}
    return {v6 + "Label": label, v6: value}


def cef(event):
    data, kind = event["data"], event["event_type"]
    fields = {
        "rt": milliseconds(event["timestamp"]),
        "dvchost": data.get("host"),
        "externalId": event["id"],
        **address(data.get("ip"), "src", "c6a2", "Source IPv6 Address"),
        "spt": data.get("src_port"),
        **address(data.get("dst"), "dst", "c6a3", "Destination IPv6 Address"),
        "dpt": data.get("port"),
        "proto": data.get("protocol"),
        "act": data.get("action"),
        "cnt": data.get("attempts") or data.get("unique_ports_scanned") or data.get("count"),
        "reason": data.get("reason") or data.get("attack_type"),
        "cs1Label": "technique" if "mitre_technique" in data else None,
        "cs1": data.get("mitre_technique"),
        "cs2Label": "trial" if "test" in data else None,
        "cs2": data.get("test"),
        "msg": data.get("error") or data.get("detail") or "; ".join(data.get("reasons", [])) or None,
    }
    extension = " ".join(f"{key}={escaped(value)}" for key, value in fields.items() if value is not None)
    version = event.get("version", "1.0")
    return f"CEF:0|verdictd|verdictd|{header(version)}|{header(kind)}|{header(kind)}|{severities(kind)[0]}|{extension}"


def syslog(event):
    priority = FACILITY * 8 + severities(event["event_type"])[1]
    line = f"<{priority}>1 {event['timestamp']} {socket.gethostname()} verdictd - - - {cef(event)}".encode()
    return b"%d %s" % (len(line), line)


@dispatcher.other
def forward(event):
    with socket.create_connection((HOST.strip("[]"), int(PORT)), timeout=5) as siem:
        siem.sendall(syslog(event))


if __name__ == "__main__":
    serve(dispatcher)
