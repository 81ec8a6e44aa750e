"use strict";
// Draws the curves of the page and shows their values under the pointer. Needs nothing but the page.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const LEFT = 64, RIGHT = 14, TOP = 12, BOTTOM = 28;

  function make(name, attributes, parent) {
    const element = document.createElementNS(SVG, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (parent) parent.append(element);
    return element;
  }

  function box(name, className, parent) {
    const element = document.createElement(name);
    element.className = className;
    parent.append(element);
    return element;
  }

  function round(value) {
    const small = value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6);
    return small ? Number(value.toPrecision(4)).toExponential().replace("e+", "e")
      : Number(value.toPrecision(4)).toString();
  }

  // Values that a person would write on an axis: 1, 2 or 5 times a power of ten.
  function ticks(low, high, count) {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    const found = [];
    for (let n = Math.ceil(low / step); n * step <= high; n += 1) found.push(n * step);
    return found;
  }

  // The range that holds the curves; single spikes of faint series may leave it.
  function range(chart) {
    const main = chart.series.filter((one) => one.color !== "faint");
    const values = (main.length ? main : chart.series).flatMap((one) =>
      one.points.flatMap((point) => (one.band ? point.slice(2) : [point[1]])));
    const faint = chart.series.filter((one) => one.color === "faint")
      .flatMap((one) => one.points.map((point) => point[1])).sort((a, b) => a - b);
    if (faint.length) {
      values.push(faint[Math.floor(faint.length * 0.01)]);
      values.push(faint[Math.ceil(faint.length * 0.99) - 1]);
    }
    let low = Infinity, high = -Infinity;
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    const margin = (high - low || Math.abs(high) || 1) * 0.06;
    return [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
  }

  function nearest(points, step) {
    let first = 0, last = points.length - 1;
    while (last - first > 1) {
      const middle = (first + last) >> 1;
      if (points[middle][0] < step) first = middle; else last = middle;
    }
    return Math.abs(points[first][0] - step) <= Math.abs(points[last][0] - step)
      ? points[first] : points[last];
  }

  function draw(chart, holder, isWide) {
    const panel = box("div", isWide ? "chart wide" : "chart", holder);
    box("h3", "", panel).textContent = chart.title;
    const width = isWide ? 1120 : 540, height = isWide ? 320 : 240;
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}` }, panel);
    const steps = chart.series.flatMap((one) => [one.points[0][0], one.points.at(-1)[0]]);
    const start = Math.min(...steps), end = Math.max(...steps, start + 1);
    const [low, high] = range(chart);
    const x = (step) => LEFT + (step - start) / (end - start) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (high - value) / (high - low) * (height - TOP - BOTTOM);
    const clip = `clip${holder.childElementCount}`;
    make("rect", { x: LEFT, y: TOP, width: width - LEFT - RIGHT, height: height - TOP - BOTTOM },
      make("clipPath", { id: clip }, svg));
    for (const value of ticks(low, high, 5)) {
      make("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }, svg);
      make("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, svg)
        .textContent = round(value);
    }
    for (const step of ticks(start, end, 6).filter(Number.isInteger)) {
      make("text", { class: "tick", x: x(step), y: height - 8, "text-anchor": "middle" }, svg)
        .textContent = step;
    }
    const curves = make("g", { "clip-path": `url(#${clip})` }, svg);
    for (const one of chart.series) curve(one, curves, x, y);
    legend(chart, panel);
    hover(chart, panel, svg, { x, start, end, width, height });
  }

  function curve(one, parent, x, y) {
    const color = `var(--${one.color})`;
    if (one.band) {
      const upper = one.points.map((p) => `${x(p[0]).toFixed(2)},${y(p[3]).toFixed(2)}`);
      const lower = one.points.map((p) => `${x(p[0]).toFixed(2)},${y(p[2]).toFixed(2)}`).reverse();
      make("polygon", { points: [...upper, ...lower].join(" "), style: `fill:${color}`,
        "fill-opacity": 0.2 }, parent);
    }
    const places = one.points.map((p) => `${x(p[0]).toFixed(2)},${y(p[1]).toFixed(2)}`);
    make("polyline", { class: one.color === "faint" ? "curve thin" : "curve",
      points: places.join(" "), style: `stroke:${color}` }, parent);
    // A few measurements are points; a line alone would hide where they are.
    if (one.points.length <= 60 && one.color !== "faint") {
      for (const p of one.points) {
        make("circle", { cx: x(p[0]), cy: y(p[1]), r: 3, style: `fill:${color}` }, parent);
      }
    }
  }

  function legend(chart, panel) {
    if (chart.series.length === 1) return;
    const names = box("div", "legend", panel);
    for (const one of chart.series) {
      const entry = box("span", "", names);
      box("i", "", entry).style.background = `var(--${one.color})`;
      entry.append(one.name);
    }
  }

  function hover(chart, panel, svg, frame) {
    const cross = make("line", { class: "cross", y1: TOP, y2: frame.height - BOTTOM }, svg);
    cross.style.display = "none";
    const tip = box("div", "tip", panel);
    tip.hidden = true;
    svg.addEventListener("pointermove", (event) => {
      const area = svg.getBoundingClientRect();
      const inside = (event.clientX - area.left) / area.width * frame.width;
      const share = (inside - LEFT) / (frame.width - LEFT - RIGHT);
      const wanted = frame.start + Math.min(1, Math.max(0, share)) * (frame.end - frame.start);
      const step = nearest(chart.series[0].points, wanted)[0];
      cross.setAttribute("x1", frame.x(step));
      cross.setAttribute("x2", frame.x(step));
      cross.style.display = "";
      tip.replaceChildren();
      box("b", "", tip).textContent = `step ${step}`;
      for (const one of chart.series) {
        const point = nearest(one.points, step);
        const words = one.band && point[2] !== point[3]
          ? `${round(point[1])} (${round(point[2])} to ${round(point[3])})` : round(point[1]);
        box("div", "", tip).textContent =
          `${one.name}: ${words}${point[0] === step ? "" : ` at step ${point[0]}`}`;
      }
      tip.hidden = false;
      const left = event.clientX - panel.getBoundingClientRect().left;
      tip.style.left = `${Math.min(left + 14, panel.clientWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${event.clientY - panel.getBoundingClientRect().top + 14}px`;
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; cross.style.display = "none"; });
  }

  function enlarge(picture) {
    const cover = document.createElement("div");
    cover.id = "large";
    cover.append(picture.cloneNode());
    cover.addEventListener("click", () => cover.remove());
    document.body.append(cover);
  }

  const holder = document.getElementById("charts");
  const charts = JSON.parse(document.getElementById("data").textContent);
  if (holder) charts.forEach((chart, number) => draw(chart, holder, number === 0));
  for (const picture of document.querySelectorAll(".pictures img")) {
    picture.addEventListener("click", () => enlarge(picture));
  }
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.getElementById("large")?.remove();
  });
  document.documentElement.dataset.ready = "yes";
})();
