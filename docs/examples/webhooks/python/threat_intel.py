"""Submits scanners as STIX 2.1 indicators to a collection of a TAXII 2.1 server.

    TAXII_COLLECTION=https://intel.example.com/api/collections/91a7b528-80eb-42ed-a74d-c6fbd5a26116/ \
        TAXII_TOKEN_FILE=token WEBHOOK_SECRET_FILE=secret python3 threat_intel.py

Others will block what is submitted here. So only what was banned for scanning is, never an operator's own ban; never
an address that is nobody's in the internet; and it holds as long as the ban. The id of an indicator comes from address
and event, so that one sent twice is one. An address can be forged: weigh what comes from a single report accordingly.
"""

import ipaddress
import json
import os
import urllib.request
import uuid

from verdict_webhook import Dispatcher, serve

NAMESPACE = uuid.UUID("8f6c2d1e-6b0f-4c35-9f0e-5a1f0d6f9b52")  # drawn once; ids of indicators hang on it
SUBMITTED = {"port_scanning", "suspicious_scanning"}
MEDIA_TYPE = "application/taxii+json;version=2.1"
# For the tests of this file, whose addresses are of the documentation (RFC 5737).
ANY_ADDRESS = os.environ.get("SUBMIT_ANY_ADDRESS") == "yes"

dispatcher = Dispatcher()


def indicator(event):
    data = event["data"]
    network = ipaddress.ip_network(data.get("prefix", data["ip"]))
    if not (network.is_global or ANY_ADDRESS):
        return None
    found = {
        "type": "indicator",
        "spec_version": "2.1",
        "id": f"indicator--{uuid.uuid5(NAMESPACE, event['id'])}",
        "created": event["timestamp"],
        "modified": event["timestamp"],
        "name": f"{network} scanned {data.get('unique_ports_scanned', 'some')} ports",
        "indicator_types": ["malicious-activity"],
        "pattern_type": "stix",
        "pattern": f"[ipv{network.version}-addr:value = '{network if network.num_addresses > 1 else data['ip']}']",
        "valid_from": event["timestamp"],
        "confidence": min(30 + 15 * int(data["block_count"]), 90),
        "kill_chain_phases": [{"kill_chain_name": "mitre-attack", "phase_name": "reconnaissance"}],
    }
    if data.get("until"):
        found["valid_until"] = data["until"]
    return found


@dispatcher.on("ip_blocked")
def submit(event):
    found = indicator(event) if event["data"]["reason"] in SUBMITTED else None
    if found is None:
        return
    with open(os.environ["TAXII_TOKEN_FILE"], encoding="utf-8") as file:
        token = file.read().strip()
    request = urllib.request.Request(
        os.environ["TAXII_COLLECTION"].rstrip("/") + "/objects/",
        json.dumps({"objects": [found]}).encode(),
        {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE, "Authorization": f"Bearer {token}"},
    )
    urllib.request.urlopen(request, timeout=10).close()


if __name__ == "__main__":
    serve(dispatcher)
