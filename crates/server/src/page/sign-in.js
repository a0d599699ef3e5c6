// Signing in, with a token or by the one-time link of `catchment login`.

import { useEffect, useState } from "./hooks.js";
import { ask } from "./api.js";
import { link } from "./route.js";
import { Failure, Field, Form, html } from "./ui.js";

const enter = (json) => ask("session", { method: "POST", json });

/** The code of a link goes by the button alone: whoever made somebody open a link has not signed them in as somebody else. */
export function SignIn({ code, session, onSignedIn }) {
  return code ? html`<${ByLink} code=${code} session=${session} onSignedIn=${onSignedIn} key=${code} />` : html`<${ByToken} onSignedIn=${onSignedIn} />`;
}

function ByToken({ onSignedIn, failure }) {
  const submit = async (form) => onSignedIn(await enter({ token: form.elements.token.value.trim() }));
  return html`<section class="card narrow">
    <h1>Sign in</h1>
    <${Failure} error=${failure} />
    <${Form} onSubmit=${submit} button="Sign in">
      <${Field} label="Token" hint="Of the role reader, operator or admin. The session ends after 12 hours, with its token, or when you sign out.">
        <input type="password" name="token" required autocomplete="current-password" autofocus spellcheck=${false} />
      <//>
    <//>
    <p>Or run <code>catchment login</code> beside the collector: it prints a link that signs in once.</p>
  </section>`;
}

function ByLink({ code, session, onSignedIn }) {
  const [failure, setFailure] = useState(null);
  // It is of no use in the address, nor in the history.
  useEffect(() => history.replaceState(null, "", link("sign-in")), []);
  const submit = async () => {
    try {
      onSignedIn(await enter({ code }));
    } catch (error) {
      setFailure(error);
    }
  };
  if (failure) return html`<${ByToken} onSignedIn=${onSignedIn} failure=${failure} />`;
  return html`<section class="card narrow">
    <h1>Sign in</h1>
    ${session && html`<p class="note warn">You are signed in as ${session.name} (${session.role}). This link ends that, and signs in as whoever made it.</p>`}
    <${Form} onSubmit=${submit} button="Sign in by this link"><p>This link signs in once, with the role of whoever ran <code>catchment login</code>.</p><//>
  </section>`;
}
