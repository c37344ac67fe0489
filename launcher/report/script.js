// Values under the pointer, or at the place that the arrow keys go to. The page is complete
// without it.
"use strict";
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const image of document.querySelectorAll(".images [open]")) image.open = false;
});
for (const figure of document.querySelectorAll("figure.chart")) {
  const block = figure.querySelector("script");
  if (!block) continue;
  const data = JSON.parse(block.textContent);
  const area = figure.querySelector(".area");
  const read = figure.querySelector(".read");
  const mark = area.appendChild(document.createElement("div"));
  mark.className = "at";
  mark.hidden = true;
  const count = (value) => value.toLocaleString("en");
  const nearest = (spots, step) =>
    spots.reduce((a, b) =>
      Math.abs((b[0] + b[1]) / 2 - step) < Math.abs((a[0] + a[1]) / 2 - step) ? b : a);
  const lines = data.lines.filter((line) => line.spots.length);
  if (!lines.length) continue;
  let at = data.high;
  const show = (step) => {
    at = Math.min(data.high, Math.max(data.low, step));
    mark.hidden = false;
    mark.style.left = (100 * (at - data.low)) / (data.high - data.low) + "%";
    read.replaceChildren();
    for (const line of lines) {
      const [first, last, mean, low, high] = nearest(line.spots, at);
      const name = lines.length > 1 ? line.label + ", " : "";
      const steps = first === last ? "step " + count(first) : "steps " + count(first) + " to " + count(last);
      const value = document.createElement("b");
      value.textContent = mean;
      const range = low === high ? "" : " (mean; " + low + " to " + high + ")";
      const row = document.createElement("div");
      row.append(name + steps + ": ", value, range);
      read.append(row);
    }
  };
  const hide = () => {
    mark.hidden = true;
    read.replaceChildren();
  };
  area.tabIndex = 0;
  area.setAttribute("aria-label", "values: arrow keys move along the steps");
  area.setAttribute("role", "group");
  const point = (event) => {
    const box = area.getBoundingClientRect();
    show(data.low + ((event.clientX - box.left) / box.width) * (data.high - data.low));
  };
  // A tap does not move. Its values stay when the finger is lifted.
  area.addEventListener("pointerdown", point);
  area.addEventListener("pointermove", point);
  area.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") hide();
  });
  area.addEventListener("blur", hide);
  area.addEventListener("keydown", (event) => {
    const stride = (data.high - data.low) / 60;
    const to = { ArrowLeft: at - stride, ArrowRight: at + stride, Home: data.low, End: data.high };
    if (event.key === "Escape") hide();
    if (!(event.key in to)) return;
    event.preventDefault();
    show(to[event.key]);
  });
}
