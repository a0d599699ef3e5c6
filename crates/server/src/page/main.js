// The frame of the page: who is signed in, what there is to look at, and the view that the address names.

import { render } from "./preact.js";
import { useEffect, useState } from "./hooks.js";
import { ask, onSignedOut } from "./api.js";
import { ZONE } from "./format.js";
import { go, link, useRoute } from "./route.js";
import { Failure, html, Session } from "./ui.js";
import { Ask, forget } from "./ask.js";
import { Audit } from "./audit.js";
import { Events } from "./events.js";
import { Overview } from "./overview.js";
import { Rejected } from "./rejected.js";
import { Sensors } from "./sensors.js";
import { SignIn } from "./sign-in.js";
import { Tokens } from "./tokens.js";

/** The views, with the roles that may do what they ask. */
const VIEWS = [
  ["overview", "Overview", Overview, ["reader", "operator", "admin"]],
  ["events", "Events", Events, ["reader", "admin"]],
  ["ask", "Ask", Ask, ["reader", "admin"]],
  ["sensors", "Sensors", Sensors, ["operator", "admin"]],
  ["rejected", "Rejected", Rejected, ["reader", "operator", "admin"]],
  ["tokens", "Tokens", Tokens, ["admin"]],
  ["audit", "Audit", Audit, ["admin"]],
];

function Page() {
  const route = useRoute();
  const [session, setSession] = useState(undefined);
  const [failure, setFailure] = useState(null);
  const look = () => ask("session").then(
    (found) => { setSession(found); setFailure(null); },
    (problem) => { setSession(null); setFailure(problem.status === 401 ? null : problem); },
  );
  const given = route.page === "sign-in" ? route.params.get("code") : null;
  // Kept while it is looked at, as it leaves the address at once.
  const [code, setCode] = useState(given);
  useEffect(() => { if (given) setCode(given); else if (route.page !== "sign-in") setCode(null); }, [given, route.page]);
  useEffect(() => {
    // Why is told, unless it is only that there is no session any more.
    onSignedOut((problem) => { setSession(null); setFailure(problem.code === "missing_token" ? null : problem); });
    if (document.body.dataset.cookie === "no") setSession(null);
    else look();
  }, []);
  const views = VIEWS.filter(([, , , roles]) => session && roles.includes(session.role));
  const [name, title, View] = views.find(([name]) => name === route.page) || [];
  useEffect(() => { document.title = title ? `${title} · Catchment` : "Catchment"; }, [title]);
  useEffect(() => { if (session && route.page === "sign-in" && !code) go("overview"); }, [session, route.page, code]);
  const signedIn = (found) => { setFailure(null); setCode(null); setSession(found); };
  const signOut = async () => {
    try {
      await ask("session", { method: "DELETE" });
      forget();
      setFailure(null);
      setSession(null);
    } catch (error) {
      // Still signed in: whoever leaves this browser has to know.
      setFailure(error);
    }
  };
  return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>To the content</a>
    <header class="bar">
      <a class="name" href="#/">Catchment</a>
      <nav aria-label="Views">${views.map(([view, text]) => html`<a href=${link(view)} aria-current=${view === name ? "page" : undefined}>${text}</a>`)}</nav>
      ${session && html`<span class="who">${session.name} <small>${session.role}</small><button type="button" class="plain" onClick=${signOut}>Sign out</button></span>`}
    </header>
    <main id="main" tabindex="-1">
      <${Failure} error=${failure} />
      ${(session === null || (session && code)) && html`<${SignIn} code=${code} session=${session} onSignedIn=${signedIn} />`}
      ${session && !code && View && html`<${Session.Provider} value=${session}><${View} route=${route} key=${name} /><//>`}
      ${session && !View && route.page !== "sign-in" && html`<p class="note">There is no view “${route.page}” for the role ${session.role}. <a href="#/">Overview</a></p>`}
    </main>
    <footer class="foot">Times are shown in ${ZONE}. <a href="docs">API</a></footer>`;
}

const place = document.getElementById("page");
place.textContent = "";
render(html`<${Page} />`, place);
