// What others send is shown and never run: HTML in events, names and labels, SQL in filters, headers, links, formulas in a file.

import { readFileSync } from "node:fs";
import { URL_OF, api, assert, go, signedIn, story } from "./browser.mjs";

const HTML = "<img src=x onerror=\"alert('run')\"><script>alert('run')</script>";
const EVIL = `${HTML}'; DROP TABLE events; --`;
const { page, check } = await signedIn("admin", {}, [400, 404]);
let token;

/** Nothing of it became a part of the page. */
const harmless = async () => assert.equal(await page.locator("main img, main script, main iframe").count(), 0);

await story([
  ["it is sent in every place that takes a text", async () => {
    ({ token } = await api("POST", "sensor", { name: "evil", labels: { [HTML.slice(0, 40)]: HTML } }));
    const fields = { [HTML]: HTML, temperature: EVIL, "a.b": { "c'd": HTML }, "=1+1": "=cmd|'/c calc'!A0", __proto__x: HTML };
    await api("POST", "events", [{ id: EVIL, type: HTML, subject: HTML, data: fields }], token);
    await api("POST", "events", [{ type: HTML, time: HTML }], token);
    await api("POST", "tokens", { role: "reader", name: HTML });
    assert.equal((await api("POST", "events", JSON.parse('{"__proto__": {"polluted": true}, "constructor": {"prototype": {"polluted": true}}}'), token)).accepted, 1);
  }],
  ["events show it as it was sent", async () => {
    await go(page, "events", "Events");
    await page.locator(".events tbody tr").nth(1).waitFor();
    for (const row of [0, 1]) {
      await page.locator(".events button[aria-expanded]").nth(row).click();
      await page.locator(".events button[aria-expanded]").nth(row).and(page.locator("[aria-expanded=true]")).waitFor();
      await page.locator(".json").first().waitFor();
      await harmless();
    }
    assert.equal(await page.evaluate(() => ({}).polluted), undefined);
  }],
  ["a value of it is a filter like any other", async () => {
    await go(page, "events", "Events");
    await page.locator(".events tbody tr").nth(1).locator("button").first().click();
    await page.getByRole("button", { name: /Filter by temperature/ }).click();
    await page.getByRole("heading", { name: "1 event", exact: true }).waitFor();
    await go(page, "events", "Events");
    await page.locator(".events tbody tr").nth(1).locator("button").first().click();
    await page.getByRole("button", { name: /Filter by a\.b\.c'd/ }).click();
    await page.getByRole("heading", { name: "1 event", exact: true }).waitFor();
    await go(page, `events?sensor=${encodeURIComponent("x' OR '1'='1")}`, "Events");
    await page.getByRole("heading", { name: "0 events" }).waitFor();
    assert.equal((await api("POST", "query", { sql: "SELECT count(*) FROM events" })).rows[0][0], 2);
  }],
  ["so do the other views", async () => {
    for (const [hash, heading] of [["sensors", "Sensors"], ["sensors/evil", "evil"], ["rejected", "Rejected"], ["tokens", "Tokens"], ["audit", "Audit"], ["overview", "Overview"]]) {
      await go(page, hash, heading);
      await page.waitForFunction(() => !document.querySelector(".busy:not(.idle)"));
      await harmless();
    }
    await go(page, `ask?sql=${encodeURIComponent("SELECT type, data, id FROM events")}`, "Ask");
    await page.getByRole("region", { name: "Answer" }).waitFor();
    await harmless();
  }],
  ["an address that somebody made up harms nothing", async () => {
    for (const hash of [`events?where=${encodeURIComponent('[["__proto__"],"=",1]')}`, `events?where=${encodeURIComponent(`[["a'||b"],"~","%'"]`)}`, "events?range=999999d&since=never", `overview?range=${encodeURIComponent(HTML)}&by=${encodeURIComponent("1; DROP TABLE events")}`,
      `sensors/${encodeURIComponent(HTML)}`, encodeURIComponent(HTML), `sign-in?code=${encodeURIComponent(HTML)}`, "%", "events?where=[[]]&where={}&where=null"]) {
      await page.goto("about:blank");
      await page.goto(`${URL_OF}/#/${hash}`);
      await page.locator("main h1, main .note").first().waitFor();
      await page.waitForFunction(() => !document.querySelector(".busy:not(.idle)"));
      await harmless();
    }
  }],
  ["a statement that writes is refused", async () => {
    await go(page, `ask?sql=${encodeURIComponent("DELETE FROM events")}`, "Ask");
    await page.getByRole("alert").waitFor();
  }],
  ["in a file for a spreadsheet no text is a formula", async () => {
    await go(page, `ask?sql=${encodeURIComponent("SELECT data->>'=1+1' AS \"=2+2\" FROM events WHERE data->>'=1+1' IS NOT NULL")}`, "Ask");
    await page.getByText("Download").click();
    const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "CSV" }).click()]);
    assert.equal(readFileSync(await file.path(), "utf8"), "'=2+2\r\n'=cmd|'/c calc'!A0\r\n");
  }],
  ["a header with a line break goes no further, and a page of elsewhere cannot put this one in a frame", async () => {
    const answer = await fetch(`${URL_OF}/page/x%0d%0aset-cookie:%20a=b/main.js`);
    assert.equal(answer.headers.get("set-cookie"), null);
    const head = (await fetch(`${URL_OF}/`)).headers;
    assert.match(head.get("content-security-policy"), /default-src 'none'.*script-src 'self'.*frame-ancestors 'none'/);
    assert.ok(!/unsafe/.test(head.get("content-security-policy")));
    assert.deepEqual([head.get("x-content-type-options"), head.get("referrer-policy")], ["nosniff", "no-referrer"]);
  }],
  ["no word of it was run", async () => check()],
]);
