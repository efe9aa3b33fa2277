/* Writing a Moment: pictures go up one by one as they are chosen, with progress; what is written waits in this
   browser until the server has it, whatever the network does. */

const DRAFT_KEY = "weft moment draft";

export function start(form) {
  if (form.dataset.kind === "posted") {
    forgetPosted();
    return;
  }
  const chosen = form.querySelector("[data-chosen]");
  const files = form.querySelector("[data-files]");
  const problem = form.querySelector("[data-problem]");
  const button = form.querySelector("button[type=submit]");
  const { upload, name, tooMany, failed, remove, kind } = form.dataset;
  const picturesMax = Number(form.dataset.picturesMax);
  const csrf = document.querySelector('meta[name="weft-csrf"]')?.content;
  const fields = ["text", "place"];
  let underWay = 0;

  function tell(sentence) {
    problem.textContent = sentence;
    problem.hidden = !sentence;
  }

  function headers() {
    const asked = {};
    if (csrf) asked["X-Weft-CSRF"] = csrf;
    // In a widget the session is a bearer token, which widget.js puts on what htmx sends.
    const event = new CustomEvent("htmx:configRequest", { detail: { headers: asked } });
    document.dispatchEvent(event);
    return event.detail.headers;
  }

  function removeButton(row) {
    const cross = document.createElement("button");
    cross.type = "button";
    cross.className = "tiny";
    cross.textContent = "×";
    cross.setAttribute("aria-label", remove);
    cross.addEventListener("click", () => {
      row.remove();
      save();
    });
    return cross;
  }

  function show(row, { id, url, video }) {
    const picture = document.createElement(video ? "video" : "img");
    picture.src = url;
    if (video) picture.muted = true;
    else picture.alt = "";
    row.dataset.video = video ? "1" : "";
    const field = document.createElement("input");
    Object.assign(field, { type: "hidden", name, value: id });
    row.dataset.url = url;
    row.replaceChildren(picture, field, removeButton(row));
  }

  function send(file) {
    const row = document.createElement("li");
    const bar = document.createElement("progress");
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", file.name);
    row.append(bar);
    if (picturesMax === 1) chosen.replaceChildren();
    chosen.append(row);
    underWay += 1;
    button.disabled = true;
    const keepsPlace = form.querySelector("[data-keep-place]")?.checked;
    const request = new XMLHttpRequest();
    request.open("POST", keepsPlace ? `${upload}?keep_place=1` : upload);
    request.responseType = "json";
    for (const [header, value] of Object.entries(headers())) request.setRequestHeader(header, value);
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) bar.value = event.loaded / event.total;
    });
    request.addEventListener("loadend", () => {
      underWay -= 1;
      button.disabled = underWay > 0;
      if (request.status === 200) {
        show(row, request.response);
        save();
        return;
      }
      // The picture is still here: a tap sends it again.
      tell(request.response?.problem ?? failed);
      const again = document.createElement("button");
      again.type = "button";
      again.className = "again";
      again.textContent = "↻";
      again.setAttribute("aria-label", failed);
      again.addEventListener("click", () => {
        row.remove();
        tell("");
        send(file);
      });
      row.replaceChildren(again, removeButton(row));
    });
    request.send(file);
  }

  files.addEventListener("change", () => {
    tell("");
    const left = picturesMax === 1 ? 1 : picturesMax - chosen.children.length;
    const wanted = [...files.files];
    if (wanted.length > left) tell(tooMany);
    wanted.slice(0, left).forEach(send);
    files.value = "";
  });
  for (const cross of chosen.querySelectorAll("[data-remove-part]")) {
    cross.addEventListener("click", () => cross.closest("li").remove());
  }
  if (kind !== "draft") return;

  function save() {
    if (kind !== "draft") return;
    const parts = [...chosen.children]
      .filter((row) => row.dataset.url)
      .map((row) => ({ id: row.querySelector("input").value, url: row.dataset.url, video: !!row.dataset.video }));
    const draft = { id: form.elements.id.value, parts };
    for (const field of fields) draft[field] = form.elements[field].value;
    try {
      if (parts.length || fields.some((field) => draft[field])) {
        localStorage.setItem(DRAFT_KEY, JSON.stringify(draft));
      } else localStorage.removeItem(DRAFT_KEY);
    } catch {
      // Storage is closed to us here: the draft lives as long as the page.
    }
  }

  function restore() {
    try {
      const draft = JSON.parse(localStorage.getItem(DRAFT_KEY) ?? "null");
      if (!draft || fields.some((field) => form.elements[field].value)) return;
      // The same id: had the server got it after all, it would be one Moment.
      form.elements.id.value = draft.id;
      for (const field of fields) form.elements[field].value = draft[field] ?? "";
      for (const part of draft.parts ?? []) {
        const row = document.createElement("li");
        show(row, part);
        chosen.append(row);
      }
    } catch {
      // What can't be read is no draft.
    }
  }

  restore();
  form.addEventListener("input", save);
  form.addEventListener("submit", save);
}

/* The draft is forgotten once the Moment is seen to be there, and not before. */
function forgetPosted() {
  try {
    const draft = JSON.parse(localStorage.getItem(DRAFT_KEY) ?? "null");
    if (draft && document.getElementById(`moment-${draft.id}`)) localStorage.removeItem(DRAFT_KEY);
  } catch {
    // Nothing was kept.
  }
}
