/* Passkeys in forms: a button asks the browser for one and sends the form with its answer. The button is hidden
   until this script has found that the browser has passkeys; without it the PIN does the same. Where there is no
   PIN, the form's own button asks for the passkey first. */

(() => {
  "use strict";

  const API = "/_weft/wallet/v1/passkeys";
  const csrf = document.querySelector('meta[name="weft-csrf"]')?.content;

  const bytesOf = (text) =>
    Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
  const textOf = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer)))
      .replaceAll("+", "-")
      .replaceAll("/", "_")
      .replaceAll("=", "");

  async function ask(path, body) {
    const answer = await fetch(API + path, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(csrf ? { "X-Weft-CSRF": csrf } : {}) },
      body: JSON.stringify(body),
    });
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error);
    return content;
  }

  const withBytes = (list) => (list ?? []).map((item) => ({ ...item, id: bytesOf(item.id) }));

  async function made() {
    const options = await ask("/options", {});
    const credential = await navigator.credentials.create({
      publicKey: {
        ...options,
        challenge: bytesOf(options.challenge),
        user: { ...options.user, id: bytesOf(options.user.id) },
        excludeCredentials: withBytes(options.excludeCredentials),
      },
    });
    return {
      clientDataJSON: textOf(credential.response.clientDataJSON),
      attestationObject: textOf(credential.response.attestationObject),
      transports: credential.response.getTransports?.() ?? [],
      credential,
    };
  }

  async function given(payment) {
    const options = await ask("/challenge", { payment });
    const credential = await navigator.credentials.get({
      publicKey: {
        ...options,
        challenge: bytesOf(options.challenge),
        allowCredentials: withBytes(options.allowCredentials),
      },
    });
    const { response } = credential;
    return {
      clientDataJSON: textOf(response.clientDataJSON),
      authenticatorData: textOf(response.authenticatorData),
      signature: textOf(response.signature),
      userHandle: response.userHandle ? textOf(response.userHandle) : null,
      credential,
    };
  }

  function answerOf({ credential, ...response }) {
    return JSON.stringify({ id: credential.id, rawId: textOf(credential.rawId), type: credential.type, response });
  }

  const isDrivenBySubmit = (form) => !form.elements.pin && !form.querySelector('[data-passkey="add"]');

  function reveal(root) {
    // Inside another site's page browsers give none to us, and a widget's forms ask for the PIN.
    if (!window.PublicKeyCredential || window.parent !== window) return;
    for (const hint of root.querySelectorAll("[data-passkey-missing]")) hint.hidden = true;
    for (const button of root.querySelectorAll("[data-passkey]")) {
      button.hidden = button.dataset.passkey === "use" && isDrivenBySubmit(button.form);
    }
  }

  document.addEventListener("DOMContentLoaded", () => reveal(document));
  document.addEventListener("htmx:load", (event) => reveal(event.target.parentElement ?? event.target));

  document.addEventListener(
    "submit",
    (event) => {
      const form = event.target;
      const button = form.querySelector('[data-passkey="use"]');
      const leaves = event.submitter?.hasAttribute("formnovalidate");
      if (!button || leaves || !window.PublicKeyCredential) return;
      if (!isDrivenBySubmit(form) || form.elements.passkey.value) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      button.click();
    },
    true
  );

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-passkey]");
    if (!button) return;
    const { form } = button;
    const problem = form.querySelector("[data-passkey-problem]");
    problem.hidden = true;
    button.disabled = true;
    try {
      const adds = button.dataset.passkey === "add";
      const answer = answerOf(adds ? await made() : await given(JSON.parse(button.dataset.payment ?? "null")));
      form.elements[adds ? "answer" : "passkey"].value = answer;
      if (!adds && form.querySelector('[data-passkey="add"]')) {
        // Here it only allows what comes next, which is a passkey to be made.
        button.hidden = true;
        form.querySelector('[data-passkey="add"]').focus();
        return;
      }
      // The button of the form itself, so that all that it brings about happens.
      form.requestSubmit(form.querySelector("button[type=submit]"));
    } catch (error) {
      // The browser says only that the person or it did not want to; our own server says why.
      problem.textContent = error instanceof DOMException ? problem.dataset.passkeyProblem : error.message;
      problem.hidden = false;
    } finally {
      button.disabled = false;
    }
  });
})();
