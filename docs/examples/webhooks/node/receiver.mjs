// Verifies and dispatches verdictd's webhooks: Node 18 and nothing else.
//
//     WEBHOOK_SECRET_FILE=secret PORT=8000 node receiver.mjs

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const WINDOW_SECONDS = 300;
const LARGEST_BODY = 2 * 1024 * 1024;
// One a line: the newest first, while it is being changed.
const secrets = readFileSync(process.env.WEBHOOK_SECRET_FILE, "utf8").split("\n").filter(Boolean);
if (secrets.length === 0) throw new Error("WEBHOOK_SECRET_FILE is empty: everybody could sign");

// Without a prototype, or a type called "constructor" would find a handler.
const handlers = {
  __proto__: null,
  ip_blocked: (data) => console.log(`blocked ${data.prefix ?? data.ip} for ${data.reason}`),
  ip_unblocked: (data) => console.log(`unblocked ${data.prefix ?? data.ip}`),
  distributed_attack_detected: (data) => console.log(`attack on port ${data.port}`),
};

/** Whether `given` is the signature of these bytes. Takes as long for a nearly right one as for a wrong one. */
function fits(secret, given, ...parts) {
  const mac = createHmac("sha256", secret);
  for (const part of parts) mac.update(part);
  const expected = Buffer.from(`sha256=${mac.digest("hex")}`);
  const shown = Buffer.from(given);
  return shown.length === expected.length && timingSafeEqual(shown, expected);
}

/** `body`: a Buffer of the bytes as they came, before anybody parses them. Node gives names of headers in lower case. */
function isGenuine(headers, body, now = Date.now() / 1000) {
  const timestamp = headers["x-firewall-timestamp"] ?? "";
  const v1 = headers["x-firewall-signature"];
  const v2 = headers["x-firewall-signature-v2"];
  if (v1 === undefined && v2 === undefined) return false;
  const signed = secrets.some(
    (secret) =>
      (v1 === undefined || fits(secret, v1, body)) && (v2 === undefined || fits(secret, v2, timestamp, ".", body)),
  );
  return signed && /^\d{1,12}(\.\d+)?$/.test(timestamp) && Math.abs(now - Number(timestamp)) <= WINDOW_SECONDS;
}

const done = new Set(); // ids; a handler of yours may rather ask its database

/** What is no batch of events is undefined: it would be none the next time either. */
function parsed(body) {
  try {
    const { events } = JSON.parse(body);
    return events.every(({ id, event_type, data }) => id && event_type && data) ? events : undefined;
  } catch {
    return undefined;
  }
}

function take(events) {
  for (const event of events) {
    if (done.has(event.id)) continue;
    handlers[event.event_type]?.(event.data, event);
    done.add(event.id);
    if (done.size > 100_000) done.delete(done.values().next().value);
  }
  return events.length;
}

async function answer(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > LARGEST_BODY) return [413, { error: "Too large" }];
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks);
  if (!isGenuine(request.headers, body)) return [401, { error: "Invalid signature" }];
  const events = parsed(body);
  if (events === undefined) return [400, { error: "Not a batch of events" }];
  return [200, { status: "success", processed_events: take(events) }];
}

const server = createServer({ requestTimeout: 10_000 }, (request, response) => {
  answer(request)
    .catch((why) => {
      console.error(why);
      return [503, { error: "Try again later" }];
    })
    .then(([status, text]) => {
      const body = Buffer.from(JSON.stringify(text));
      response.writeHead(status, {
        "Content-Type": "application/json",
        "Content-Length": body.length,
        Connection: "close",
        ...(status === 503 && { "Retry-After": "5" }),
      });
      response.end(body);
    });
});
server.listen(Number(process.env.PORT ?? 8000), "127.0.0.1", () =>
  console.log(`listening on http://127.0.0.1:${server.address().port}`),
);
