/* Reads codes with the camera or from a picture, in the browser: no picture leaves it. What was read is put into
   the page's own form, which asks the server what it means. */

import { decodeQR } from "./vendor/qr/decode.js";

const LOOK_EVERY_MS = 120;
const SIDE_MAX_PX = 960;
const PICTURE_SIDE_MAX_PX = 2400;

export function start(root) {
  const part = (name) => root.querySelector(`[data-${name}]`);
  const form = document.querySelector("[data-scan-form]");
  const video = root.querySelector("video");
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let stream = null;

  part("needs-script").hidden = false;

  function say(sentence) {
    part("scan-problem").querySelector("span").textContent = sentence;
    part("scan-problem").hidden = !sentence;
  }

  function read(source, width, height, sideMax, timeLimit) {
    const scale = Math.min(1, sideMax / Math.max(width, height));
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    context.drawImage(source, 0, 0, canvas.width, canvas.height);
    try {
      return decodeQR(context.getImageData(0, 0, canvas.width, canvas.height), { timeLimit });
    } catch {
      return "";
    }
  }

  function found(text) {
    stop();
    document.getElementById("announcer").textContent = root.dataset.found;
    form.elements.text.value = text;
    form.requestSubmit();
  }

  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    video.srcObject = null;
    part("viewfinder").hidden = true;
    part("idle").hidden = false;
    part("start").hidden = false;
    part("stop").hidden = true;
  }

  async function look() {
    // Another page may have taken this one's place in its frame.
    if (!stream || !root.isConnected) return stop();
    if (video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) {
      const text = read(video, video.videoWidth, video.videoHeight, SIDE_MAX_PX, 60);
      if (text) return found(text);
    }
    setTimeout(look, LOOK_EVERY_MS);
  }

  part("start").addEventListener("click", async () => {
    say("");
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
      video.srcObject = stream;
      await video.play();
    } catch {
      stop();
      return say(root.dataset.noCamera);
    }
    part("viewfinder").hidden = false;
    part("idle").hidden = true;
    part("start").hidden = true;
    part("stop").hidden = false;
    part("stop").focus();
    look();
  });
  part("stop").addEventListener("click", () => {
    stop();
    part("start").focus();
  });

  part("picture").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    say("");
    let text = "";
    try {
      const picture = await createImageBitmap(file);
      // Once small, where noise is lost, and once large, where a small code can be seen.
      for (const side of [SIDE_MAX_PX, PICTURE_SIDE_MAX_PX]) {
        text ||= read(picture, picture.width, picture.height, side, 1500);
      }
      picture.close();
    } catch {
      // No picture at all: the sentence fits that, too.
    }
    if (text) found(text);
    else say(root.dataset.nothingFound);
  });
}
