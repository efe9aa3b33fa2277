/* Signs a page in when it stands as a widget inside a Matrix client: the client vouches for its user with an
   OpenID token, which our server exchanges for a session. No cookie: other sites' pages could use it there. */

(() => {
  "use strict";

  const asked = new URLSearchParams(location.search);
  const parentUrl = asked.get("parentUrl");
  const widgetId = asked.get("widgetId") ?? asked.get("widget_id");
  const userId = asked.get("user_id");
  // Kept per user: in one tab, a client may be signed out and in again as somebody else.
  const storageKey = userId?.startsWith("@") ? `weft session ${userId}` : null;

  if (window.parent === window || !parentUrl) {
    // Opened in a tab of its own: there it is an ordinary page.
    location.replace(location.pathname);
    return;
  }

  function originOf(url) {
    try {
      const { origin } = new URL(url);
      // A desktop client's own scheme has no origin here; what is sent to it holds no secret.
      return origin === "null" ? "*" : origin;
    } catch {
      return "*";
    }
  }

  const clientOrigin = originOf(parentUrl);

  // Other widgets of the same client can post messages here too; only the client itself is listened to.
  window.addEventListener(
    "message",
    (event) => {
      const fromClient = event.source === window.parent;
      if (!fromClient || (clientOrigin !== "*" && event.origin !== clientOrigin)) {
        event.stopImmediatePropagation();
      }
    },
    true
  );
  // Its minified build (1.19) gives a function that gives the library, the other one the library itself.
  const { WidgetApi } = typeof mxwidgets === "function" ? mxwidgets() : mxwidgets;
  const api = new WidgetApi(widgetId, clientOrigin);
  api.start();

  const AGAIN_AFTER_MS = 10_000;
  let session = null;
  let signedInAt = 0;

  function remember(value) {
    session = value;
    if (!storageKey) return;
    try {
      if (value) sessionStorage.setItem(storageKey, JSON.stringify(value));
      else sessionStorage.removeItem(storageKey);
    } catch {
      // Storage is closed to us here: the session lives as long as the page.
    }
  }

  function remembered() {
    if (!storageKey) return null;
    try {
      const value = JSON.parse(sessionStorage.getItem(storageKey));
      return value && value.user_id === userId && value.expires_at_ms > Date.now() ? value : null;
    } catch {
      return null;
    }
  }

  async function askClient() {
    try {
      return await api.requestOpenIDConnectToken();
    } catch {
      throw new Error(reasons().clientSilent);
    }
  }

  async function exchange(openid) {
    const answer = await fetch("/_weft/sessions/openid", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      credentials: "omit",
      body: JSON.stringify({
        access_token: openid.access_token,
        matrix_server_name: openid.matrix_server_name,
        token_type: openid.token_type,
        expires_in: openid.expires_in,
      }),
    });
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error);
    if (storageKey && content.user_id !== userId) {
      throw new Error(reasons().otherUser);
    }
    return content;
  }

  // What this script says stands in the page, in the page's language.
  const reasons = () => document.getElementById("widget-reason").dataset;

  function show(state, sentence) {
    for (const part of document.querySelectorAll("[data-widget-state]")) {
      part.hidden = part.dataset.widgetState !== state;
    }
    const reason = document.getElementById("widget-reason");
    if (reason && sentence) reason.textContent = sentence;
    if (state === "refused" || state === "signed-out") {
      document.querySelector(`[data-widget-state="${state}"] button`)?.focus();
    }
  }

  async function signIn() {
    show("waiting");
    try {
      const known = remembered();
      if (known) session = known;
      else {
        remember(await exchange(await askClient()));
        signedInAt = Date.now();
      }
    } catch (error) {
      show("refused", error instanceof Error && error.message ? error.message : reasons().noReason);
      return;
    }
    show("signed-in");
    htmx.trigger(document.body, "weft:signed-in");
  }

  document.addEventListener("htmx:configRequest", (event) => {
    if (session) event.detail.headers.Authorization = `Bearer ${session.token}`;
    // This page came in the client's language; its user may have chosen another, which then counts.
    event.detail.headers["Accept-Language"] = document.documentElement.lang;
  });

  document.addEventListener("htmx:load", (event) => {
    const { lang, dir } = event.target;
    if (["wallet", "moments"].includes(event.target.id)) Object.assign(document.documentElement, { lang, dir });
  });

  // A session that ended on the server is begun again, but not in a circle.
  document.addEventListener("htmx:responseError", (event) => {
    if (event.detail.xhr.status !== 401) return;
    remember(null);
    if (Date.now() - signedInAt < AGAIN_AFTER_MS) show("refused", reasons().sessionRefused);
    else signIn();
  });

  // A file that a link leads to is asked for with the session, which an address alone does not carry.
  async function download(link) {
    const answer = await fetch(link.href, {
      headers: session ? { Authorization: `Bearer ${session.token}` } : {},
      credentials: "omit",
    });
    if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
    const named = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "");
    const address = URL.createObjectURL(await answer.blob());
    const file = Object.assign(document.createElement("a"), { href: address, download: named?.[1] ?? "" });
    file.click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }

  // Before htmx, which would put the file into the page.
  document.addEventListener(
    "click",
    (event) => {
      const file = event.target.closest("a[download]");
      if (!file || file.href.startsWith("blob:")) return;
      event.preventDefault();
      event.stopPropagation();
      download(file).catch(() => htmx.trigger(document.body, "weft:failed"));
    },
    true
  );

  document.addEventListener("click", async (event) => {
    if (event.target.closest("[data-widget-sign-in]")) signIn();
    if (event.target.closest("[data-widget-sign-out]")) {
      const token = session?.token;
      remember(null);
      const content = document.getElementById("widget-content");
      if (content) content.replaceChildren();
      show("signed-out");
      if (token) {
        await fetch("/_weft/sessions/signout", {
          method: "POST",
          headers: { Authorization: `Bearer ${token}` },
          credentials: "omit",
        }).catch(() => {});
      }
    }
  });

  document.addEventListener("DOMContentLoaded", () => {
    // Clients that wait for the page's load event answer this with an error, which says nothing.
    api.sendContentLoaded().catch(() => {});
    // After htmx has read the page: a session that is remembered is there at once.
    setTimeout(signIn);
  });
})();
