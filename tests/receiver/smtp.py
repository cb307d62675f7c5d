"""A mail server for the tests (aiosmtpd): STARTTLS and a login, or neither. Each message becomes a line of JSON.

smtp.py FILE [CERTIFICATE KEY USER PASSWORD]     prints its port
"""
import json
import signal
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

target = sys.argv[1]


class Keep:
    async def handle_DATA(self, server, session, envelope):
        kept = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None,
            "user": session.auth_data.login.decode() if session.authenticated else None,
            "text": envelope.content.decode(),
        }
        with open(target, "a") as file:
            file.write(json.dumps(kept) + "\n")
        return "250 kept"


options = {}
if len(sys.argv) > 2:
    _, _, certificate, key, user, password = sys.argv
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def check(server, session, envelope, mechanism, data):
        good = data.login == user.encode() and data.password == password.encode()
        return AuthResult(success=good, handled=False, auth_data=data)

    options = dict(tls_context=context, require_starttls=True, auth_required=True, authenticator=check)

# Controller asks itself for a greeting at its port, so it must know the number: any free one is taken first.
import socket

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
controller = Controller(Keep(), hostname="127.0.0.1", port=port, **options)
controller.start()
print(port, flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
