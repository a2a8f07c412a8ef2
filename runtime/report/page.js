"use strict";
// Zooms into the timeline and shows what a span worked on. The page reads well without it.
const timeline = document.querySelector(".timeline");
if (timeline) {
  const inner = timeline.querySelector(".inner");
  const buttons = document.querySelectorAll(".zoom button");
  const picked = document.querySelector(".picked");
  // Zooming in stays on the worst mark, later on what is in the middle.
  const mark = inner.querySelector(".stall, .missed");
  let zoom = 1;

  const middle = () => {
    if (zoom === 1 && mark) return (parseFloat(mark.style.left) + parseFloat(mark.style.width) / 2) / 100;
    return (timeline.scrollLeft + timeline.clientWidth / 2) / inner.clientWidth;
  };

  const zoomTo = (factor) => {
    const at = middle();
    zoom = factor;
    inner.style.setProperty("--zoom", zoom);
    for (const step of [4, 20]) inner.classList.toggle(`zoom${step}`, zoom >= step);
    timeline.scrollLeft = at * inner.clientWidth - timeline.clientWidth / 2;
    for (const b of buttons) b.setAttribute("aria-pressed", String(Number(b.dataset.zoom) === zoom));
  };

  // Everything that was made from the same camera picture stands out together.
  const pick = (span) => {
    timeline.classList.toggle("picking", Boolean(span));
    picked.textContent = span ? span.title : "";
    for (const other of inner.querySelectorAll(".lane i")) {
      const same = span && (other === span || (span.dataset.frame && other.dataset.frame === span.dataset.frame));
      other.classList.toggle("of-one", Boolean(same));
    }
  };

  document.querySelector(".zoom").hidden = false;
  for (const b of buttons) b.addEventListener("click", () => zoomTo(Number(b.dataset.zoom)));
  inner.addEventListener("click", (event) => pick(event.target.closest(".lane i")));
}
