// What the stories share: a real Chromium, in which every word on the console that is an error, and every request to another address, ends the story.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";

const require = createRequire(`${process.env.CATCHMENT_BROWSER_NODE}/`);
const { chromium } = require("playwright-core");
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** The collector's address, and a token of its admin. */
export const URL_OF = process.env.CATCHMENT_URL, TOKEN = process.env.CATCHMENT_TOKEN;

const browser = await chromium.launch({ executablePath: process.env.CATCHMENT_BROWSER || "/usr/bin/chromium", args: ["--no-sandbox"] });

/** A page, and what went wrong on it. Answers with these statuses are part of the story: a browser writes them on the console. */
export async function opened(options = {}, expected = []) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: "en-GB", timezoneId: "Europe/Berlin", acceptDownloads: true, ...options });
  context.setDefaultTimeout(30000);
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (message) => {
    const isExpected = expected.some((status) => message.text().includes(`status of ${status}`));
    if (["error", "warning"].includes(message.type()) && !isExpected) wrong.push(`console: ${message.text()} ${message.location().url}`);
  });
  page.on("pageerror", (error) => wrong.push(`error: ${error.stack}`));
  page.on("dialog", (dialog) => { wrong.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => { if (!request.url().startsWith(URL_OF) && !/^(data|blob|about):/.test(request.url())) wrong.push(`request: ${request.url()}`); });
  return { page, context, check: () => assert.deepEqual(wrong, []) };
}

/** Asks the API as the admin. */
export async function api(method, path, body, token = TOKEN) {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const answer = await fetch(`${URL_OF}/api/v1/${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  return answer.status === 204 ? null : answer.json();
}

/** The page as somebody of this role sees it, signed in with a token of their own. */
export async function signedIn(role = "admin", options = {}, expected = []) {
  const opening = await opened(options, expected);
  const { token } = await api("POST", "tokens", { role, name: `${role} of a test` });
  await opening.page.goto(`${URL_OF}/`);
  await opening.page.getByLabel("Token").fill(token);
  await opening.page.getByRole("button", { name: "Sign in" }).click();
  await opening.page.getByRole("heading", { name: "Overview" }).waitFor();
  return { ...opening, token };
}

export const go = async (page, hash, heading) => {
  // From elsewhere, as what is behind the # alone does not load it anew.
  await page.goto("about:blank");
  await page.goto(`${URL_OF}/#/${hash}`);
  await page.getByRole("heading", { name: heading, level: 1 }).waitFor();
};

/** What axe-core finds against WCAG 2.2 A and AA, in a few words. */
export async function flaws(page) {
  // Through the debugger, as no policy of the page lets a script in.
  await page.evaluate(AXE);
  const found = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }));
  return found.violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html, any }) => `${html.slice(0, 160)} ${any[0]?.message ?? ""}`).slice(0, 3).join(" | ")}`);
}

/** Runs the steps of a story one after the other, and tells how far it came. */
export async function story(steps) {
  try {
    for (const [what, step] of steps) {
      try {
        await step();
      } catch (error) {
        console.log(`not ok: ${what}\n${error.stack}`);
        process.exitCode = 1;
        return;
      }
      console.log(`ok: ${what}`);
    }
  } finally {
    await browser.close();
  }
}

/** Waits until it holds. */
export async function until(what, holds) {
  for (let tries = 0; tries < 300; tries += 1) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`it did not come to pass in time: ${what}`);
}

export { assert };
