// From signing in by a link to signing out: a sensor is registered, sends, its events arrive while somebody looks, are filtered, asked and drawn.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { URL_OF, api, assert, go, opened, story, until } from "./browser.mjs";

const { page, check } = await opened({}, [400, 401, 503]);
let token, rotated;
const events = (batch, by = token) => api("POST", "events", batch, by);
const text = (selector) => page.locator(selector).first().innerText();

await story([
  ["a one-time link signs in, and is of no use a second time", async () => {
    await page.goto(`${URL_OF}/`);
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    // Into the tab that shows the form: nothing is loaded anew.
    await page.goto(process.env.LINK);
    await page.getByRole("button", { name: "Sign in by this link" }).click();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    assert.ok(!page.url().includes("code="), page.url());
    const [cookie] = await page.context().cookies();
    assert.ok(cookie.httpOnly && cookie.sameSite === "Strict", JSON.stringify(cookie));
    assert.equal(await page.evaluate(() => document.cookie), "");
    const other = await opened({}, [401]);
    await other.page.goto(process.env.LINK);
    await other.page.getByRole("button", { name: "Sign in by this link" }).click();
    await other.page.getByRole("alert").waitFor();
    await other.page.getByLabel("Token").waitFor();
    await other.context.close();
  }],
  ["a link signs nobody in as somebody else without a word", async () => {
    const { code } = await api("POST", "session/code");
    await page.goto(`${URL_OF}/#/sign-in?code=${code}`);
    await page.getByText("This link ends that").waitFor();
    await page.getByRole("link", { name: "Overview" }).click();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
  }],
  ["a view that is opened from another site is shown, too", async () => {
    const link = `<a href="${URL_OF}/#/audit">look</a>`;
    const site = createServer((_, answer) => answer.end(`<!doctype html><title>wiki</title>${link}`)).listen(0, "127.0.0.1");
    await new Promise((resolve) => site.once("listening", resolve));
    const tab = await page.context().newPage();
    await tab.goto(`http://localhost:${site.address().port}/`);
    await tab.getByRole("link", { name: "look" }).click();
    await tab.getByRole("heading", { name: "Audit" }).waitFor();
    await tab.close();
    site.close();
  }],
  ["a sensor is registered, and its token shown once with what sends", async () => {
    await go(page, "sensors", "Sensors");
    await page.getByRole("button", { name: "Register" }).first().click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name").fill("Roof 1");
    await dialog.getByRole("button", { name: "Register" }).click();
    token = await dialog.locator(".secret code").innerText();
    assert.match(token, /^cat_[\w-]{43}$/);
    for (const name of ["curl", "Python", "JavaScript", "syslog-ng"]) await dialog.getByRole("button", { name, exact: true }).click();
    await dialog.getByRole("button", { name: "curl", exact: true }).click();
    const snippet = await dialog.locator("pre").first().innerText();
    assert.ok(snippet.includes(URL_OF) && snippet.includes(token), snippet);
    execFileSync("sh", ["-c", snippet]);
    await dialog.getByRole("button", { name: "Close" }).click();
    await page.getByRole("link", { name: "roof-1" }).waitFor();
    await until("it is shown once", async () => !(await page.content()).includes(token));
  }],
  ["what a snippet sent is an event", async () => {
    await go(page, "events?sensor=roof-1", "Events");
    await page.locator(".events tbody tr").first().waitFor();
  }],
  ["events arrive while somebody looks, and wait while the list is paused", async () => {
    await page.getByRole("button", { name: "Live" }).click();
    await page.getByRole("heading", { name: "Live", exact: true }).waitFor();
    await events([{ type: "reading", temperature: 21.5, room: { name: "attic" } }]);
    await page.getByText("21.5").first().waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await events([{ type: "reading", temperature: 22.25, room: { name: "cellar" } }]);
    await page.getByText("1 came meanwhile").waitFor();
    assert.equal(await page.getByText("22.25").count(), 0);
    await page.getByRole("button", { name: "Go on" }).click();
    await page.getByText("22.25").first().waitFor();
    await page.getByRole("button", { name: "Live: on" }).click();
  }],
  ["an event is opened, and one of its values becomes a filter", async () => {
    await page.locator(".events button", { hasText: ":" }).first().click();
    await page.getByRole("button", { name: 'Filter by room.name = "cellar"' }).click();
    await page.getByText("data.room.name").waitFor();
    await page.getByRole("heading", { name: "1 event", exact: true }).waitFor();
    assert.ok(page.url().includes("where="), page.url());
    await page.getByRole("button", { name: "Remove the filter of room.name" }).click();
    await page.getByPlaceholder("data.temperature").fill("data.temperature");
    await page.getByLabel("How it is compared").selectOption(">=");
    await page.getByLabel("Value").fill("22");
    await page.getByRole("button", { name: "Add filter" }).click();
    await page.getByRole("heading", { name: "1 event", exact: true }).waitFor();
    await page.reload();
    await page.getByRole("heading", { name: "1 event", exact: true }).waitFor();
  }],
  ["a number that no double holds stays as it was sent, and finds its event", async () => {
    const body = '[{"type":"clock","nanos":1764292962123456789},{"type":"clock","nanos":1764292962123456788}]';
    await fetch(`${URL_OF}/api/v1/events`, { method: "POST", headers: { authorization: `Bearer ${token}`, "content-type": "application/json" }, body });
    await go(page, "events?type=clock", "Events");
    await page.locator(".events tbody button").first().click();
    await page.getByRole("button", { name: "Filter by nanos = 1764292962123456788" }).click();
    await page.getByRole("heading", { name: "1 event", exact: true }).waitFor();
    await go(page, `events?where=${encodeURIComponent('[["temperature"],">=",22]')}`, "Events");
    await page.getByRole("heading", { name: "1 event", exact: true }).waitFor();
  }],
  ["what is shown is had as a file", async () => {
    await page.getByText("Download").click();
    const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "NDJSON" }).click()]);
    assert.equal(file.suggestedFilename(), "events.ndjson");
    const lines = readFileSync(await file.path(), "utf8").trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(lines.map(({ sensor, data }) => [sensor, JSON.parse(data).temperature]), [["roof-1", 22.25]]);
  }],
  ["a question is completed, asked, answered, drawn, and kept", async () => {
    await go(page, "ask", "Ask");
    const area = page.locator("textarea");
    await area.fill("");
    await area.pressSequentially("SELECT date_bin(INTERVAL '1 minute', time) AS minute, max(data.te");
    await page.locator(".completions").getByRole("option", { name: /data\.temperature/ }).waitFor();
    await area.press("Tab");
    await area.pressSequentially("::double) AS warmest FROM events GROUP BY 1");
    assert.ok((await area.inputValue()).includes("max(data.temperature::double)"), await area.inputValue());
    await area.press("Control+Enter");
    await page.getByRole("region", { name: "Answer" }).waitFor();
    await page.getByRole("button", { name: "Lines" }).click();
    await page.locator(".u-wrap canvas").waitFor();
    await page.reload();
    await page.locator(".u-wrap canvas").waitFor();
    await page.getByRole("button", { name: "Table" }).click();
    await page.getByRole("region", { name: "Answer" }).waitFor();
    assert.ok(await page.getByLabel("Asked before").locator("option").count() >= 2);
  }],
  ["an error is shown at its place", async () => {
    await page.locator("textarea").fill("SELECT count(*)\nFROM evens");
    await page.getByRole("button", { name: "Ask", exact: true }).click();
    await page.getByRole("alert").waitFor();
    assert.equal(await text("[role=alert] pre"), "2 | FROM evens");
    assert.equal(await text("[role=alert] mark"), "e");
    assert.equal(await page.evaluate(() => document.activeElement.selectionStart), "SELECT count(*)\nFROM ".length);
  }],
  ["an answer that breaks off is told", async () => {
    await page.route("**/api/v1/query", (route) => route.fulfill({ status: 200, contentType: "application/json", body: '{"columns":[{"name":"a","type":"bigint"}],"rows":[[1],' }), { times: 1 });
    await page.locator("textarea").fill("SELECT 1");
    await page.getByRole("button", { name: "Ask", exact: true }).click();
    await page.getByRole("alert").filter({ hasText: "broke off" }).waitFor();
  }],
  ["a long question is cancelled", async () => {
    await page.locator("textarea").fill("SELECT count(*) FROM events a, events b, events c, events d, events e, events f, events g, events h, events i WHERE a.position + b.position + c.position + d.position + e.position + f.position + g.position + h.position + i.position = 7");
    await api("POST", "events", Array.from({ length: 40 }, (_, n) => ({ type: "filler", n })), token);
    await page.getByRole("button", { name: "Ask", exact: true }).click();
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByText("Cancelled.").waitFor();
    const metrics = async () => (await (await fetch(process.env.ADMIN_URL)).text()).match(/catchment_query_running (\d+)/)[1];
    await until("the collector stopped it", async () => (await metrics()) === "0");
  }],
  ["the overview counts them", async () => {
    await go(page, "overview?range=15m", "Overview");
    await until("stored events", async () => /Events stored\s*4\d/.test(await text(".tiles")));
    await until("three charts and more", async () => (await page.locator(".u-wrap").count()) >= 5);
    assert.match(await text(".tile.good"), /ready/);
    await page.getByRole("button", { name: "by sensor" }).click();
    await page.getByRole("img", { name: /roof-1/ }).waitFor();
    assert.ok(page.url().includes("by=sensor"));
  }],
  ["what is rejected is shown with why", async () => {
    await events([{ type: "reading", time: "yesterday", temperature: 3 }]);
    await go(page, "rejected", "Rejected");
    await page.getByText("invalid_time").first().waitFor();
    await page.getByText("roof-1").first().waitFor();
  }],
  ["a token is rotated: the old one ends, the new one sends", async () => {
    await go(page, "sensors/roof-1", "roof-1");
    await page.getByRole("button", { name: /Rotate/ }).first().click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("The old tokens end").selectOption("at once");
    await dialog.getByRole("button", { name: /Rotate|Make/ }).click();
    rotated = await dialog.locator(".secret code").innerText();
    assert.notEqual(rotated, token);
    assert.equal((await events([{ n: 1 }], rotated)).accepted, 1);
    assert.equal((await events([{ n: 1 }])).code, "invalid_token");
    await dialog.getByRole("button", { name: "Close" }).click();
  }],
  ["the audit has who did it", async () => {
    await go(page, "audit", "Audit");
    await page.getByText("sensor.register").first().waitFor();
    await page.getByText("session.begin").first().waitFor();
  }],
  ["who cannot be signed out is told so, and stays signed in", async () => {
    await page.route("**/api/v1/session", (route) => route.fulfill({ status: 503, contentType: "application/problem+json", body: '{"code":"registry_busy","detail":"the session was not ended"}' }), { times: 1 });
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("alert").filter({ hasText: "was not ended" }).waitFor();
    await page.getByRole("heading", { name: "Audit" }).waitFor();
  }],
  ["signing out ends the session, also for who kept the cookie", async () => {
    const cookies = await page.context().cookies();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    const answer = await fetch(`${URL_OF}/api/v1/sensors`, { headers: { cookie: cookies.map(({ name, value }) => `${name}=${value}`).join("; ") } });
    assert.equal(answer.status, 401);
    assert.equal(await page.evaluate(() => localStorage.length), 0, "what was asked is forgotten");
    await page.goto(`${URL_OF}/#/events`);
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
  }],
  ["nothing went wrong on the way, and nothing was asked of another address", async () => check()],
]);
