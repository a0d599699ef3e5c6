// Every view in light and dark, on a desk and on a phone: nothing that axe-core finds, nothing wider than the screen, by keyboard, few bytes.

import { URL_OF, api, assert, flaws, go, signedIn, story } from "./browser.mjs";

const ASKED = "SELECT date_bin(INTERVAL '1 minute', time) AS minute, sensor, avg(data.temperature) AS temperature\nFROM events\nGROUP BY 1, 2\nORDER BY 1";
const VIEWS = [
  ["overview?range=15m", "Overview"], ["events?range=1h", "Events"], ["events?live=1", "Events"], [`ask?show=lines&sql=${encodeURIComponent(ASKED)}`, "Ask"],
  ["sensors", "Sensors"], ["sensors/roof", "roof"], ["rejected", "Rejected"], ["tokens", "Tokens"], ["audit", "Audit"],
];
const LOOKS = [
  ["desk, light", { colorScheme: "light" }], ["desk, dark", { colorScheme: "dark" }],
  ["phone, light", { viewport: { width: 360, height: 780 }, colorScheme: "light", hasTouch: true, isMobile: true }],
];
/** Where the pictures of the README are taken anew, by `make pictures`. */
const folder = process.env.PICTURES;
const PICTURES = { "desk, light: overview": "overview", "desk, light: events": "events", "desk, dark: ask": "ask", "phone, light: sensors/roof": "sensor" };

async function fill() {
  const sensors = [];
  for (const [name, labels, kind] of [["roof", { site: "berlin" }, 0], ["cellar", { site: "berlin" }, 1], ["gate-7", { site: "hamburg" }, 2]]) {
    const { token } = await api("POST", "sensor", { name, labels });
    const type = kind === 2 ? "door" : "reading";
    const reading = (ago) => ({ type, time: new Date(Date.now() - ago * 1000).toISOString(), temperature: 18 + kind + 4 * Math.sin(ago / 400 + kind), open: Math.random() < 0.5, room: { name, floor: kind } });
    await api("POST", "events", Array.from({ length: 60 }, (_, n) => reading(n * 40)), token);
    await api("POST", "events", [{ type: "reading", time: "yesterday" }], token);
    sensors.push({ token, reading });
  }
  if (!folder) return;
  // A picture shows how it looks while something comes.
  const send = async () => {
    for (const { token, reading } of sensors) await api("POST", "events", Array.from({ length: 4 + Math.round(Math.random() * 9) }, () => reading(0)), token);
  };
  setInterval(() => send().catch(() => {}), 500).unref();
  await new Promise((resolve) => setTimeout(resolve, 150000));
}

async function look(name, options) {
  const { page, check, context } = await signedIn("admin", options);
  for (const [hash, heading] of VIEWS) {
    await go(page, hash, heading);
    await page.waitForFunction(() => !document.querySelector(".busy:not(.idle)"));
    if (hash.startsWith("overview")) await page.locator(".u-wrap").nth(3).waitFor();
    assert.deepEqual(await flaws(page), [], `${name}: ${hash}`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(wide <= 0, `${name}: ${hash} is ${wide} pixels wider than the screen`);
    const picture = PICTURES[`${name}: ${hash.replace("?range=15m", "").replace("?range=1h", "").replace(/\?show.*/s, "")}`];
    if (folder && picture) await page.screenshot({ path: `${folder}/${picture}.png` });
  }
  check();
  await context.close();
}

async function keyboard() {
  const { page, check, context } = await signedIn("reader");
  await page.reload();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "To the content");
  for (const name of ["Catchment", "Overview", "Events"]) {
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), name);
  }
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Events", level: 1 }).waitFor();
  const row = page.locator(".events tbody button").first();
  await row.focus();
  await page.keyboard.press("Enter");
  await page.locator(".json").waitFor();
  assert.equal(await row.getAttribute("aria-expanded"), "true");
  check();
  await context.close();
}

async function roles() {
  for (const [role, views] of [["reader", ["Overview", "Events", "Ask", "Rejected"]], ["operator", ["Overview", "Sensors", "Rejected"]]]) {
    const { page, check, context } = await signedIn(role);
    assert.deepEqual(await page.locator("nav a").allInnerTexts(), views);
    for (const view of views) {
      await page.getByRole("navigation").getByRole("link", { name: view }).click();
      await page.getByRole("heading", { name: view, level: 1 }).waitFor();
      await page.waitForFunction(() => !document.querySelector(".busy:not(.idle)"));
      assert.equal(await page.getByRole("alert").count(), 0, `${role}: ${view}: ${await page.getByRole("alert").allInnerTexts()}`);
    }
    check();
    await context.close();
  }
}

async function weight() {
  const { page, context } = await signedIn("admin");
  await page.reload();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  const client = await context.newCDPSession(page);
  await client.send("Network.clearBrowserCache");
  await page.reload();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  const [bytes, paint] = await page.evaluate(() => {
    const all = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource").filter(({ name }) => name.includes("/page/"))];
    return [all.reduce((sum, { transferSize }) => sum + transferSize, 0), performance.getEntriesByName("first-paint")[0]?.startTime];
  });
  console.log(`the page is ${bytes} bytes on the wire, its first paint came after ${Math.round(paint)} ms`);
  assert.ok(bytes > 20000 && bytes < 150000, `${bytes} bytes`);
  const again = await (async () => { await page.reload(); await page.getByRole("heading", { name: "Overview" }).waitFor(); return page.evaluate(() => performance.getEntriesByType("resource").filter(({ name, transferSize }) => name.includes("/page/") && transferSize > 0).length); })();
  assert.equal(again, 0, "a file of the page is fetched once");
  await context.close();
}

await story([
  ["there is something to look at", fill],
  ...LOOKS.map(([name, options]) => [`every view: ${name}`, () => look(name, options)]),
  ["by keyboard alone", keyboard],
  ["each role sees the views that it may use, and no error in them", roles],
  ["few bytes, fetched once", weight],
  ["the page for who has no JavaScript", async () => {
    const html = await (await fetch(`${URL_OF}/`)).text();
    assert.match(html, /<noscript>/);
  }],
]);
