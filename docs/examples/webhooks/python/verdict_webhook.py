"""Verify and dispatch verdictd's webhooks: the standard library of Python 3.9 and nothing else.

    from verdict_webhook import Dispatcher, serve

    dispatcher = Dispatcher()

    @dispatcher.on("ip_blocked")
    def blocked(event):
        print(event["data"]["ip"])

    serve(dispatcher)

A handler that raises is answered with 503: the sender keeps the batch and sends it again. What other handlers did with
that batch is remembered by the id of each event, so nothing is done twice. Give SEEN_DATABASE a path to remember it
over a restart as well.
"""

import hashlib
import hmac
import json
import os
import sqlite3
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WINDOW_SECONDS = 300
LARGEST_BODY = 2 * 1024 * 1024
REMEMBERED_DAYS = 30  # longer than any sender keeps an event (spool_max_age, 24h)


class Refused(Exception):
    """The request is not what it says. The words are for your log, not for whoever sent it."""


def signature(secret, *parts):
    return "sha256=" + hmac.new(secret.encode(), b"".join(parts), hashlib.sha256).hexdigest()


def verify(headers, body, secrets, now=None):
    """Raises Refused unless one of `secrets` signed `body` (bytes, as they came) within the last five minutes.

    `headers` needs a get() that ignores case, as those of http.server, Flask and Django have.
    """
    timestamp = headers.get("X-Firewall-Timestamp") or ""
    given = {
        "X-Firewall-Signature": (body,),
        "X-Firewall-Signature-V2": (timestamp.encode(), b".", body),
    }
    given = {name: parts for name, parts in given.items() if headers.get(name)}
    if not given:
        raise Refused("it is not signed")
    # Every header that is there has to fit, and all of them one secret.
    fits = [
        all(hmac.compare_digest(signature(secret, *parts).encode(), headers.get(name).encode())
            for name, parts in given.items())
        for secret in secrets
    ]
    if not any(fits):
        raise Refused("no signature fits: another secret, or the body was changed on its way")
    try:
        age = (time.time() if now is None else now) - float(timestamp)
    except ValueError:
        raise Refused(f"no time: {timestamp!r}") from None
    if not abs(age) <= WINDOW_SECONDS:
        raise Refused(f"it is {age:.0f} s old: a recorded request, or one clock is wrong")


class Dispatcher:
    """Calls the handler of each event, once an event however often it is sent."""

    def __init__(self, seen=None):
        self.handlers = {}
        self.otherwise = lambda event: None
        self.lock = threading.Lock()
        self.seen = sqlite3.connect(seen or os.environ.get("SEEN_DATABASE", ":memory:"), check_same_thread=False)
        self.seen.execute("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY, at INTEGER) WITHOUT ROWID")

    def on(self, *event_types):
        """Decorates the handler of these types."""
        def register(handler):
            self.handlers.update(dict.fromkeys(event_types, handler))
            return handler
        return register

    def other(self, handler):
        """Decorates the handler of every type without one of its own: a later version may bring new ones."""
        self.otherwise = handler
        return handler

    def dispatch(self, batch):
        """Handles what was not handled yet, one batch at a time; whether all of it is done with."""
        with self.lock:
            done = [self._once(event) for event in batch["events"]]
            self.seen.execute("DELETE FROM seen WHERE at < ?", (time.time() - REMEMBERED_DAYS * 86400,))
            self.seen.commit()
        return all(done)

    def _once(self, event):
        if self.seen.execute("SELECT 1 FROM seen WHERE id = ?", (event["id"],)).fetchone():
            return True
        try:
            self.handlers.get(event["event_type"], self.otherwise)(event)
        except Exception:
            # The others of the batch shall not wait for this one.
            traceback.print_exc()
            return False
        self.seen.execute("INSERT INTO seen VALUES (?, ?)", (event["id"], int(time.time())))
        self.seen.commit()
        return True

    def answer(self, headers, body, secrets):
        """Status and JSON to answer a request with."""
        try:
            verify(headers, body, secrets)
        except Refused as why:
            print(f"refused: {why}", file=sys.stderr, flush=True)
            return 401, {"error": "Invalid signature"}
        try:
            batch = json.loads(body)
            if not all(isinstance(event["id"], str) and isinstance(event["event_type"], str)
                       and isinstance(event["data"], dict) for event in batch["events"]):
                raise TypeError("an event without id, event_type or data")
        except (ValueError, KeyError, TypeError, RecursionError) as why:
            print(f"no batch of events: {why!r}", file=sys.stderr, flush=True)
            return 400, {"error": "Not a batch of events"}
        if not self.dispatch(batch):
            return 503, {"error": "Try again later"}
        return 200, {"status": "success", "processed_events": len(batch["events"])}


def secrets_of_environment():
    """One secret a line in WEBHOOK_SECRET_FILE (the newest first, while it is being changed), else WEBHOOK_SECRET."""
    path = os.environ.get("WEBHOOK_SECRET_FILE")
    text = open(path, encoding="utf-8").read() if path else os.environ.get("WEBHOOK_SECRET", "")
    return [line for line in text.split("\n") if line] or sys.exit("no secret: set WEBHOOK_SECRET_FILE")


def serve(dispatcher, address="127.0.0.1"):
    """Serves for ever on PORT (8000); a proxy that speaks TLS belongs before it."""
    secrets = secrets_of_environment()

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self):
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal():
                return self.reply(411, {"error": "Length required"})
            if int(length) > LARGEST_BODY:
                return self.reply(413, {"error": "Too large"})
            self.reply(*dispatcher.answer(self.headers, self.rfile.read(int(length)), secrets))

        def reply(self, status, answer):
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 503:
                self.send_header("Retry-After", "5")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, form, *values):
            pass

    server = ThreadingHTTPServer((address, int(os.environ.get("PORT", "8000"))), Handler)
    print("listening on http://%s:%d" % server.server_address, flush=True)
    server.serve_forever()
