"use strict";
// The slider, or a finger on the picture, moves the border between the earlier and the later date.
const view = document.getElementById("swipe");
const slider = document.getElementById("slider");
const move = () => view.style.setProperty("--at", `${slider.value / 10}%`);
const follow = (event) => {
  const box = view.getBoundingClientRect();
  slider.value = Math.round(1000 * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
  move();
};
slider.addEventListener("input", move);
view.addEventListener("pointerdown", (event) => { view.setPointerCapture(event.pointerId); follow(event); });
view.addEventListener("dragstart", (event) => event.preventDefault()); // else the browser drags the picture away
view.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
document.getElementById("heat").addEventListener("change", (event) => view.classList.toggle("hot", event.target.checked));
move();
