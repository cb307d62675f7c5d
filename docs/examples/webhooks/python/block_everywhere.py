"""Bans on every other firewall what one of them banned: `verdictctl ban` over ssh.

    FIREWALLS="ban@fw1.example.com ban@fw2.example.com" WEBHOOK_SECRET_FILE=secret python3 block_everywhere.py

An operator's ban (reason "manual") is not passed on. Bans made here are such on the other firewalls, so two firewalls
that listen to each other do not keep a ban alive for ever. On each firewall, let the key do nothing but this:
docs/examples/webhooks/sh/ban-only.sh, which also leaves a longer ban alone that is there already: `verdictctl ban`
alone would replace it.

A firewall that cannot be reached is tried again with the event for five minutes, then given up for that event: a ban
that comes late protects nobody, and later ones shall not wait behind it. Eight firewalls are asked at once, and each
may take its time: give the endpoint of the sender timeout = 60 and batch_size = 1.
"""

import ipaddress
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from verdict_webhook import Dispatcher, serve

FIREWALLS = os.environ["FIREWALLS"].split()
SSH = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
LONGEST_SECONDS = 86400  # one firewall's mistake shall not last for weeks on all of them
GIVE_UP_SECONDS = 300

dispatcher = Dispatcher()


def seconds_until(timestamp):
    # fromisoformat() takes the Z itself from Python 3.11 on
    return (datetime.fromisoformat(timestamp.replace("Z", "+00:00")) - datetime.now(timezone.utc)).total_seconds()


def command(data):
    """What to run over there, or None if the ban is over. Made of parsed values, never of text from the network."""
    seconds = LONGEST_SECONDS
    if data["until"] is not None:
        seconds = min(int(seconds_until(data["until"])), LONGEST_SECONDS)
    network = ipaddress.ip_network(data.get("prefix", data["ip"]))
    target = network.network_address if network.num_addresses == 1 else network
    return f"verdictctl ban {target} --for {seconds}s" if seconds > 0 else None


def ban(firewall, order):
    """Whether there is nothing left to do."""
    try:
        done = subprocess.run([*SSH, "--", firewall, order], stdin=subprocess.DEVNULL, timeout=30,
                              capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        print(f"{firewall}: {order}: no answer", file=sys.stderr, flush=True)
        return False
    if done.returncode != 0:
        print(f"{firewall}: {order}: {done.returncode}: {done.stderr.strip()}", file=sys.stderr, flush=True)
    # 1 is refused (protected there, say), and the same again would be; 255 is ssh's own.
    return done.returncode in (0, 1)


@dispatcher.on("ip_blocked")
def ban_everywhere(event):
    order = None if event["data"]["reason"] == "manual" else command(event["data"])
    if order is None:
        return
    with ThreadPoolExecutor(max_workers=8) as pool:
        done = list(pool.map(lambda firewall: ban(firewall, order), FIREWALLS))
    # What raises is sent again.
    if not all(done) and seconds_until(event["timestamp"]) > -GIVE_UP_SECONDS:
        raise RuntimeError("not every firewall was reached")


if __name__ == "__main__":
    serve(dispatcher)
