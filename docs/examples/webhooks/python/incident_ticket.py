"""Opens an incident for what people must look at: attacks of many sources, and protection that is at stake.

    TICKET_URL=https://tickets.example.com/api/incidents TICKET_TOKEN_FILE=token \
        WEBHOOK_SECRET_FILE=secret python3 incident_ticket.py

The id of the event goes along as the key by which the ticket system knows what it has already (Idempotency-Key): the
answer may be lost after the ticket was made, and then the event comes again.
"""

import json
import os
import urllib.request

from verdict_webhook import Dispatcher, serve

TITLES = {
    "distributed_attack_detected": "Distributed attack on port {port}",
    "ban_storm": "More bans than {max_bans_per_minute} a minute",
    "integrity_violation": "A file of the firewall was changed",
    "ruleset_wiped": "The firewall's rules were removed",
    "selftest_failed": "The firewall's self-test failed",
}

dispatcher = Dispatcher()


@dispatcher.on(*TITLES)
def open_ticket(event):
    data = event["data"]
    title = TITLES[event["event_type"]].format_map(data)
    ticket = {
        "title": f"Trial: {title}" if data.get("test") else title,
        "severity": "critical",
        "occurred_at": event["timestamp"],
        "external_id": event["id"],
        "details": data,
    }
    with open(os.environ["TICKET_TOKEN_FILE"], encoding="utf-8") as file:
        token = file.read().strip()
    request = urllib.request.Request(os.environ["TICKET_URL"], json.dumps(ticket).encode(), {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {token}",
        "Idempotency-Key": event["id"],
    })
    # Any status but 2xx raises: the sender is told 503 and comes again.
    urllib.request.urlopen(request, timeout=10).close()


if __name__ == "__main__":
    serve(dispatcher)
