/* What every page of Weft does in the browser: prove that its forms are ours, say when something failed,
   show times in the reader's own zone, copy, fill in. Everything works, if less smoothly, without it. */

(() => {
  "use strict";

  const csrf = document.querySelector('meta[name="weft-csrf"]')?.content;
  const trouble = () => document.getElementById("trouble");
  const announcer = () => document.getElementById("announcer");
  // What is said by this script stands in the page, in the page's language.
  const words = () => document.getElementById("words").dataset;

  document.addEventListener("htmx:configRequest", (event) => {
    if (csrf) event.detail.headers["X-Weft-CSRF"] = csrf;
  });

  function showTrouble(sentence) {
    const toast = trouble();
    toast.textContent = sentence;
    toast.hidden = false;
  }

  document.addEventListener("htmx:beforeRequest", () => {
    trouble().hidden = true;
  });
  document.addEventListener("htmx:sendError", (event) => {
    // What polls in the background asks again by itself.
    if (event.detail.elt?.hasAttribute("data-polls")) return;
    showTrouble(words().unreachable);
  });
  document.addEventListener("htmx:timeout", () => {
    showTrouble(words().tooSlow);
  });
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (status === 401 || event.detail.elt?.hasAttribute("data-polls")) return;
    showTrouble(status === 403 ? words().outOfDate : words().failed);
  });

  document.addEventListener("weft:failed", () => showTrouble(words().failed));

  // A choice that only shows something else needs no button; without script there is one.
  document.addEventListener("change", (event) => {
    if (event.target.closest("[data-at-once]")) event.target.form?.requestSubmit();
  });

  // News that comes by itself never takes away what somebody is at just now.
  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    const { target, requestConfig } = event.detail;
    if (requestConfig?.elt?.hasAttribute("data-polls") && target.contains(document.activeElement)) {
      event.detail.shouldSwap = false;
    }
  });

  const sameDay = (one, other) => one.toDateString() === other.toDateString();

  // The page's language, in the reader's regional kind of it; digits as the server writes them.
  function locale() {
    const language = document.documentElement.lang;
    const regional = navigator.languages.find((wish) => wish.split("-")[0] === language);
    return new Intl.Locale(regional ?? language, { numberingSystem: "latn" });
  }

  function relativeDay(days) {
    const word = new Intl.RelativeTimeFormat(locale(), { numeric: "auto" }).format(days, "day");
    return word.charAt(0).toLocaleUpperCase(document.documentElement.lang) + word.slice(1);
  }

  function showTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]:not([data-shown])")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const clock = at.toLocaleTimeString(locale(), { hour: "2-digit", minute: "2-digit" });
      const now = new Date();
      const yesterday = new Date(now.getTime() - 86_400_000);
      const sameYear = at.getFullYear() === now.getFullYear();
      const day = at.toLocaleDateString(locale(), {
        day: "numeric",
        month: "short",
        ...(sameYear ? {} : { year: "numeric" }),
      });
      const near = sameDay(at, now) ? relativeDay(0) : sameDay(at, yesterday) ? relativeDay(-1) : day;
      time.textContent = words().dayAndTime.replace("{day}", near).replace("{time}", clock);
      time.title = at.toLocaleString(locale());
      time.dataset.shown = "";
    }
  }

  // What only some pages need is loaded by them.
  function startModules(root) {
    for (const part of root.querySelectorAll("[data-module]:not([data-started])")) {
      part.dataset.started = "";
      import(part.dataset.module).then((module) => module.start(part));
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    showTimes(document);
    startModules(document);
  });
  document.addEventListener("htmx:load", (event) => {
    showTimes(event.target);
    startModules(document);
    // What has just been put into the page may want the focus; the attribute autofocus is for pages.
    (event.target.matches("[data-focus]") ? event.target : event.target.querySelector("[data-focus]"))?.focus();
  });

  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      try {
        await navigator.clipboard.writeText(copy.dataset.copy);
        announcer().textContent = words().copied;
        const label = copy.querySelector("[data-label]");
        if (label) {
          const before = label.textContent;
          label.textContent = words().copied;
          setTimeout(() => (label.textContent = before), 2000);
        }
      } catch {
        showTrouble(words().notCopied);
      }
      return;
    }
    const fill = event.target.closest("[data-fill]");
    if (fill) {
      const field = document.getElementById(fill.dataset.fill);
      if (field) {
        event.preventDefault();
        field.value = fill.dataset.value;
        document.getElementById(fill.dataset.then)?.focus();
      }
    }
  });

  // A menu closes by Escape and by a click elsewhere, as people expect of one.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
})();
