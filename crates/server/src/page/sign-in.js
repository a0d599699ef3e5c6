// Signing in, with a token or by the one-time link of `catchment login`.

import { useEffect, useState } from "./hooks.js";
import { ask } from "./api.js";
import { link } from "./route.js";
import { Failure, Field, Form, html } from "./ui.js";

const enter = (json) => ask("session", { method: "POST", json });

export function SignIn({ route, onSignedIn }) {
  const [failure, setFailure] = useState(null);
  const [code] = useState(() => (route.page === "sign-in" ? route.params.get("code") : null));
  useEffect(() => {
    if (!code) return;
    // Used once: it is of no more use in the address, nor in the history.
    history.replaceState(null, "", link("overview"));
    dispatchEvent(new HashChangeEvent("hashchange"));
    enter({ code }).then(onSignedIn, setFailure);
  }, []);
  const submit = async (form) => onSignedIn(await enter({ token: form.elements.token.value.trim() }));
  if (code && !failure) return html`<p class="note" role="status">Signing in…</p>`;
  return html`<section class="card narrow">
    <h1>Sign in</h1>
    <${Failure} error=${failure} />
    <${Form} onSubmit=${submit} button="Sign in">
      <${Field} label="Token" hint="Of the role reader, operator or admin. It stays here for 12 hours at most, or until you sign out.">
        <input type="password" name="token" required autocomplete="current-password" autofocus spellcheck="false" />
      <//>
    <//>
    <p>Or run <code>catchment login</code> beside the collector: it prints a link that signs in once.</p>
  </section>`;
}
