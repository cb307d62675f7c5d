"""Forwards every event to a SIEM as CEF in syslog (RFC 5424) over TCP (RFC 6587, counted octets).

    SIEM_ADDRESS=siem.example.com:601 WEBHOOK_SECRET_FILE=secret python3 siem_forward.py

A SIEM that cannot be reached makes the request fail with 503, so that the sender keeps the events meanwhile.
"""

import os
import socket

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


def cef(event):
    data, kind = event["data"], event["event_type"]
    fields = {
        "rt": event["timestamp"],
        "externalId": event["id"],
        "src": data.get("ip"),
        "dpt": data.get("port"),
        "spt": data.get("src_port"),
        "dst": data.get("dst"),
        "proto": data.get("protocol"),
        "act": data.get("action"),
        "cnt": data.get("attempts") or data.get("unique_ports_scanned") or data.get("count"),
        "reason": data.get("reason") or data.get("attack_type"),
        "cs1Label": "technique" if "mitre_technique" in data else None,
        "cs1": data.get("mitre_technique"),
        "msg": data.get("error") or data.get("detail"),
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
