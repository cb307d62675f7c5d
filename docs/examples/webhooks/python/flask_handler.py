"""A Flask handler that verifies as the Python system's documentation says, and the newer signature where it is there.

    WEBHOOK_SECRET=… python3 flask_handler.py        (python3-flask of Debian, or pip install flask)
"""

import hashlib
import hmac
import os
import time

from flask import Flask, jsonify, request
from werkzeug.serving import make_server

LARGEST_BODY = 2 * 1024 * 1024

app = Flask(__name__)
SECRET = os.environ["WEBHOOK_SECRET"]
if not SECRET:
    raise SystemExit("WEBHOOK_SECRET is empty: everybody could sign")


def verify_signature(payload, signature, secret):
    expected = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(f"sha256={expected}", signature)


def is_recent(timestamp):
    try:
        return abs(time.time() - float(timestamp)) <= 300
    except ValueError:
        return False


def is_genuine():
    payload = request.get_data(as_text=True)
    timestamp = request.headers.get("X-Firewall-Timestamp", "")
    signature = request.headers.get("X-Firewall-Signature", "")
    newer = request.headers.get("X-Firewall-Signature-V2")
    # compare_digest raises on other text than ASCII
    if not (signature + (newer or "")).isascii() or not is_recent(timestamp):
        return False
    if newer is not None and not verify_signature(f"{timestamp}.{payload}", newer, SECRET):
        return False
    return verify_signature(payload, signature, SECRET)


@app.post("/webhook")
def webhook():
    # MAX_CONTENT_LENGTH bounds get_data() from Werkzeug 2.3 on only.
    if request.content_length is None or request.content_length > LARGEST_BODY:
        return jsonify(error="Too large"), 413
    if not is_genuine():
        return jsonify(error="Invalid signature"), 401
    batch = request.get_json(force=True)
    events = batch.get("events") if isinstance(batch, dict) else None
    if not isinstance(events, list):
        return jsonify(error="Not a batch of events"), 400
    for event in events:
        print(event["event_type"], event["data"].get("ip"), flush=True)
    return jsonify(status="success", processed_events=len(events))


if __name__ == "__main__":
    # For trying it out. In production: gunicorn flask_handler:app
    server = make_server("127.0.0.1", int(os.environ.get("PORT", "5000")), app)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
