// The frame of the page: who is signed in, what there is to look at, and the view that the address names.

import { render } from "./preact.js";
import { useEffect, useState } from "./hooks.js";
import { ask, onSignedOut } from "./api.js";
import { ZONE } from "./format.js";
import { go, link, useRoute } from "./route.js";
import { Failure, html, Session } from "./ui.js";
import { Ask } from "./ask.js";
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
  useEffect(() => {
    onSignedOut(() => setSession(null));
    const isNobody = document.body.dataset.cookie === "no" || (route.page === "sign-in" && route.params.get("code"));
    if (isNobody) setSession(null);
    else look();
  }, []);
  const views = VIEWS.filter(([, , , roles]) => session && roles.includes(session.role));
  const [name, title, View] = views.find(([name]) => name === route.page) || [];
  useEffect(() => { document.title = title ? `${title} · Catchment` : "Catchment"; }, [title]);
  useEffect(() => { if (session && route.page === "sign-in") go("overview"); }, [session, route.page]);
  const signOut = async () => {
    await ask("session", { method: "DELETE" }).catch(setFailure);
    setSession(null);
  };
  return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>To the content</a>
    <header class="bar">
      <a class="name" href="#/">Catchment</a>
      <nav aria-label="Views">${views.map(([view, text]) => html`<a href=${link(view)} aria-current=${view === name ? "page" : undefined}>${text}</a>`)}</nav>
      ${session && html`<span class="who">${session.name} <small>${session.role}</small><button type="button" class="plain" onClick=${signOut}>Sign out</button></span>`}
    </header>
    <main id="main" tabindex="-1">
      <${Failure} error=${failure} />
      ${session === null && html`<${SignIn} route=${route} onSignedIn=${(found) => { setFailure(null); setSession(found); }} />`}
      ${session && View && html`<${Session.Provider} value=${session}><${View} route=${route} key=${name} /><//>`}
      ${session && !View && route.page !== "sign-in" && html`<p class="note">There is no view “${route.page}” for the role ${session.role}. <a href="#/">Overview</a></p>`}
    </main>
    <footer class="foot">Times are shown in ${ZONE}. <a href="docs">API</a></footer>`;
}

const place = document.getElementById("page");
place.textContent = "";
render(html`<${Page} />`, place);
