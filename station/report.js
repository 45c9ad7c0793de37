// Reads the timeline under the pointer, and ties it to the video where there is one. The page is whole without it.
"use strict";
(() => {
  const carrier = document.getElementById("flight");
  if (!carrier) return;
  const flight = JSON.parse(carrier.textContent);
  const timeline = document.getElementById("timeline");
  const readout = document.getElementById("readout");
  const cursor = timeline.querySelector(".cursor");
  const head = timeline.querySelector(".head");
  const video = document.querySelector("video");
  const hint = readout.textContent;

  const columnAt = (place) => {
    let low = 0, high = flight.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (flight.starts[middle] <= place) low = middle; else high = middle - 1;
    }
    return low;
  };
  const placeOf = (event) => {
    const box = timeline.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const read = (place) => {
    const at = columnAt(place);
    const label = flight.labels[flight.label[at]];
    const name = document.createElement("b");
    name.textContent = label ?? "unknown";
    readout.replaceChildren(
      `${flight.moment[at]} · frame ${flight.frame[at]} · `, name,
      `${label === null ? "" : ` ${flight.score[at].toFixed(2)}`} · age ${flight.age[at]} ms`,
    );
  };

  timeline.addEventListener("pointermove", (event) => {
    const place = placeOf(event);
    cursor.hidden = false;
    cursor.style.left = `${100 * place}%`;
    read(place);
  });
  timeline.addEventListener("pointerleave", () => {
    cursor.hidden = true;
    readout.textContent = hint;
  });

  if (!video || !flight.seekable) return;
  const follow = () => {
    const place = (video.currentTime - flight.begins) / flight.extent;
    if (place < 0 || place > 1) return;
    head.hidden = false;
    head.style.left = `${100 * place}%`;
    if (!video.paused) {
      read(place);
      requestAnimationFrame(follow);
    }
  };
  const jump = (seconds) => {
    video.currentTime = seconds;
    video.scrollIntoView({ block: "nearest", behavior: "smooth" });
  };
  video.addEventListener("error", () => video.remove());
  video.addEventListener("play", follow);
  video.addEventListener("seeked", follow);
  timeline.addEventListener("click", (event) => jump(flight.begins + placeOf(event) * flight.extent));
  timeline.style.cursor = "pointer";
  document.body.classList.add("follows");
  for (const image of document.querySelectorAll("img[data-at]")) {
    image.addEventListener("click", () => jump(Number(image.dataset.at)));
  }
})();
