// A token that is shown once, with senders to paste for this server's own address. Each takes the id of an event before it is first sent, so that one
// that is sent again is stored once. Senders with a spool are in docs/SENDING.md; that for syslog-ng is from there.

import { useState } from "./hooks.js";
import { address } from "./api.js";
import { Choice, Copy, html, Shown } from "./ui.js";

/** A text of a shell. */
const sh = (text) => `'${text.replaceAll("'", "'\\''")}'`;
/** A text of Python, JavaScript or syslog-ng, in which none of the signs is special that an address and a token have. */
const quoted = (text) => JSON.stringify(text);

const curl = (url, token) => `CATCHMENT_TOKEN=${sh(token)}
# By standard input: on a command line other users would see the token.
printf 'header = "Authorization: Bearer %s"\\n' "$CATCHMENT_TOKEN" |
  curl -sS -K - -H 'Content-Type: application/json' \\
    -d '{"type": "reading", "data": {"temperature": 21.5}}' ${sh(url)}
`;

const python = (url, token) => `import http.client, json, random, time, urllib.error, urllib.request, uuid

URL = ${quoted(url)}
TOKEN = ${quoted(token)}

def send(type, data):
    """Sends an event, and tries until it is taken; with the id it is stored once."""
    event = {"id": str(uuid.uuid4()), "type": type, "time": time.time(), "data": data}
    body = json.dumps(event, allow_nan=False).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(URL, body, headers)
    wait = 0.5
    while True:
        after = ""
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429, 500, 502, 503, 504):
                raise RuntimeError(f"{error.code} {error.read().decode()}") from error
            after = error.headers.get("Retry-After", "")
        except (OSError, http.client.HTTPException):
            pass
        time.sleep((int(after) if after.isdigit() else 0) + random.uniform(0, wait))
        wait = min(2 * wait, 60)

print(send("reading", {"temperature": 21.5}))
`;

const javascript = (url, token) => `const ADDRESS = ${quoted(url)};
const TOKEN = ${quoted(token)};
const newId = () =>
  globalThis.crypto?.randomUUID?.() ?? [Date.now(), Math.random(), Math.random()].map((n) => n.toString(36)).join("-");

// Sends an event, and tries until it is taken; with the id it is stored once.
async function send(type, data) {
  const body = JSON.stringify({ id: newId(), type, time: new Date().toISOString(), data });
  const headers = { authorization: \`Bearer \${TOKEN}\`, "content-type": "application/json" };
  for (let wait = 500; ; wait = Math.min(2 * wait, 60_000)) {
    const answer = await fetch(ADDRESS, { method: "POST", headers, body }).catch(() => undefined);
    if (answer?.ok) return answer.json();
    if (answer && ![408, 429, 500, 502, 503, 504].includes(answer.status)) throw new Error(await answer.text());
    const after = 1000 * (Number(answer?.headers.get("retry-after")) || 0);
    await new Promise((then) => setTimeout(then, after + wait * Math.random()));
  }
}

send("reading", { temperature: 21.5 }).then(console.log, console.error);
`;

const syslogNg = (url, token) => `options { use-uniqid(yes); };

destination d_catchment {
    http(
        url(${quoted(url)})
        method("POST")
        headers(${quoted(`Authorization: Bearer ${token}`)}, "Content-Type: application/x-ndjson")
        # An envelope a line. $UNIQID is kept with a message, so that one sent again is not stored twice.
        body("$(format-json id=$UNIQID type=log time=$ISODATE subject=$HOST data.program=$PROGRAM data.pid=$PID data.severity=$LEVEL data.facility=$FACILITY data.message=$MESSAGE)")
        frac-digits(6)
        delimiter("\\n")
        batch-lines(1000)
        batch-bytes(1024Kb)
        batch-timeout(1000)
        timeout(60)
        time-reopen(2)
        # A batch of nothing but rejected events is not sent again; whatever else fails is tried until it is taken.
        response-action(400 => drop)
        retries(1000000)
        disk-buffer(reliable(yes) disk-buf-size(1073741824) mem-buf-size(16777216))
    );
};

log { source(s_src); destination(d_catchment); };
`;

const SENDERS = [
  ["curl", "curl", curl, "Sends one event from a shell."],
  ["python", "Python", python, "Python 3.8 or newer, nothing else. What is not sent yet is in memory."],
  ["javascript", "JavaScript", javascript, "Node 18 or newer, and browsers. Whoever reads a page reads its token: give a page one of the role send_only; cors.allow_origins names the pages that may send."],
  ["syslog-ng", "syslog-ng", syslogNg, "syslog-ng 3.38 or newer with its module for HTTP, as /etc/syslog-ng/conf.d/catchment.conf. s_src is the source of Debian's configuration."],
];

/** A token with the senders that take it. */
export function ShownSender({ token, children }) {
  const [name, setName] = useState("curl");
  const [, title, write, about] = SENDERS.find(([one]) => one === name);
  const text = write(address("events"), token);
  return html`<${Shown} token=${token}>${children}
    <div class="head"><${Choice} label="Sender" options=${SENDERS} value=${name} onChange=${setName} /><${Copy} text=${text} label=${`Copy for ${title}`} /></div>
    <p class="dim">${about}</p>
    <pre tabindex="0" aria-label=${`Sender for ${title}`}><code>${text}</code></pre>
  <//>`;
}
