"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const $$ = (query, root = document) => [...root.querySelectorAll(query)];
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const draw = (tag, attributes, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
const two = (x) => x.toFixed(2);

/* ---- sorting: the unmodified model stays on top, rows without a value at the end ---- */

function sort(table, key, direction) {
  const headings = $$("thead th", table);
  const heading = headings.find((th) => th.querySelector(`[data-sort="${key}"]`));
  if (!heading) return;
  const at = headings.indexOf(heading);
  for (const th of headings) th.setAttribute("aria-sort", th === heading ? direction : "none");
  const sign = direction === "ascending" ? 1 : -1;
  const body = table.tBodies[table.tBodies.length - 1];
  const value = (row) => row.cells[at].dataset.value ?? "";
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (key === "name" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
  });
  body.append(...rows);
}

function sortable(table) {
  for (const button of $$("[data-sort]", table)) {
    button.addEventListener("click", () => {
      const now = button.closest("th").getAttribute("aria-sort");
      const best = ["rank", "name"].includes(button.dataset.sort) || button.textContent.includes("↓");
      const first = best ? "ascending" : "descending";
      const other = best ? "descending" : "ascending";
      sort(table, button.dataset.sort, now === first ? other : first);
    });
  }
}

/* ---- BenchScore at the slider's alpha: alpha * safety + (1 - alpha) * quality ---- */

const score = (row, alpha) => alpha * row.safety + (1 - alpha) * row.quality;

function rate(section, group, alpha) {
  const rated = group.rows.filter((row) => row.spread);
  const ranked = rated.filter((row) => row.ranked);
  const at = DATA.alphas.findIndex((one) => Math.abs(one - alpha) < 1e-9);
  const above = (row) => ranked.filter((one) => score(one, alpha) > score(row, alpha) + 1e-12).length;
  for (const row of rated) {
    const line = section.querySelector(`tr[data-id="${row.id}"]`);
    const [cell, place] = [line.querySelector("[data-score]"), line.querySelector("[data-rank]")];
    const value = score(row, alpha);
    const [low, high, first, last] = row.spread[at];
    cell.dataset.value = value;
    const bar = make("span", { class: "bar", "aria-hidden": "true" },
      make("i", { class: "range", style: `left:${100 * low}%;right:${100 - 100 * high}%` }),
      make("i", { class: "dot", style: `left:${100 * value}%` }));
    cell.replaceChildren(
      make("span", { class: "v" }, two(value)), make("span", { class: "ci" }, `${two(low)}–${two(high)}`), bar);
    if (!row.ranked) continue;
    row.rank = 1 + above(row);
    place.dataset.value = row.rank;
    place.replaceChildren(make("b", {}, `${row.rank}`),
      make("span", { class: "ci" }, first === last ? `${first}` : `${first}–${last}`));
  }
  return ranked.sort((a, b) => a.rank - b.rank);
}

function slider(section, group) {
  const input = section.querySelector('input[type="range"]');
  if (!input) return;
  const table = section.querySelector("table.results");
  const move = (speak) => {
    const alpha = Number(input.value);
    section.querySelector("output").textContent = two(alpha);
    const ranked = rate(section, group, alpha);
    const sorted = table.querySelector('th[aria-sort="ascending"] button, th[aria-sort="descending"] button');
    const key = sorted ? sorted.dataset.sort : "rank";
    if (key === "rank" || key === "score") {
      sort(table, key, sorted ? sorted.closest("th").getAttribute("aria-sort") : "ascending");
    }
    scatter(section, group, alpha);
    if (speak) section.querySelector("[data-status]").textContent =
      `At alpha ${two(alpha)}: ${ranked.slice(0, 3).map((row) => row.name).join(", ")}`;
  };
  input.addEventListener("input", () => move(true));
  new ResizeObserver(() => scatter(section, group, Number(input.value))).observe(section.querySelector("[data-scatter]"));
  move(false);
}

/* ---- safety against quality ---- */

function pareto(rows) {
  const beats = (a, b) => a.safety >= b.safety && a.quality >= b.quality && (a.safety > b.safety || a.quality > b.quality);
  return rows.filter((row) => !rows.some((other) => beats(other, row))).sort((a, b) => a.quality - b.quality);
}

function scatter(section, group, alpha) {
  const box = section.querySelector("[data-scatter]");
  const rows = group.rows.filter((row) => row.spread);
  const width = Math.max(300, box.clientWidth), height = Math.min(520, Math.max(300, width * 0.62));
  const left = 44, right = 24, top = 16, bottom = 44;
  const x = (q) => left + q * (width - left - right), y = (s) => height - bottom - s * (height - top - bottom);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(draw("line", { class: "grid", x1: x(0), x2: x(1), y1: y(tick), y2: y(tick) }),
      draw("line", { class: "grid", x1: x(tick), x2: x(tick), y1: y(0), y2: y(1) }),
      draw("text", { class: "axis", x: x(0) - 8, y: y(tick) + 4, "text-anchor": "end" }, tick),
      draw("text", { class: "axis", x: x(tick), y: y(0) + 18, "text-anchor": "middle" }, tick));
  }
  svg.append(draw("text", { class: "axis", x: x(1), y: height - 6, "text-anchor": "end" }, "quality →"),
    draw("text", { class: "axis", x: x(0), y: height - 6 }, "↑ safety"));
  const best = Math.max(...rows.filter((row) => row.ranked).map((row) => score(row, alpha)));
  const ends = isoline(alpha, best);
  if (ends.length === 2) svg.append(draw("line", { class: "iso", x1: x(ends[0][0]), y1: y(ends[0][1]), x2: x(ends[1][0]), y2: y(ends[1][1]) }));
  const front = pareto(rows);
  const steps = front.map((row) => `V${y(row.safety)} H${x(row.quality)}`).join(" ");
  const path = front.length ? `M${x(0)} ${y(front[0].safety)} ${steps} V${y(0)}` : "";
  svg.append(draw("path", { class: "front", d: path }));
  const taken = rows.map((row) => [x(row.quality) - 7, y(row.safety) - 7, 14, 14]);
  for (const row of [...rows].sort((a, b) => b.safety - a.safety)) {
    const [px, py] = [x(row.quality), y(row.safety)];
    const [safe, good] = [row.spread[row.spread.length - 1], row.spread[0]];
    const on = front.includes(row);
    const spoken = `${row.name}: safety ${two(row.safety)}, quality ${two(row.quality)}${on ? ", on the Pareto front" : ""}`;
    const point = draw("g", { class: `point${on ? " best" : ""}${row.ranked ? "" : " base"}`, tabindex: "0", role: "img", "aria-label": spoken });
    point.append(draw("title", {}, spoken),
      draw("line", { class: "whisker", x1: px, x2: px, y1: y(safe[0]), y2: y(safe[1]) }),
      draw("line", { class: "whisker", x1: x(good[0]), x2: x(good[1]), y1: py, y2: py }),
      draw("circle", { cx: px, cy: py, r: 6 }));
    const name = row.name.length > 22 ? `${row.name.slice(0, 21)}…` : row.name;
    const wide = (on ? 8 : 7.3) * name.length;
    const at = free(px, py, wide, taken, width);
    taken.push([at.x, at.y - 12, wide, 16]);
    point.append(draw("text", { x: at.x, y: at.y }, name));
    const light = (lit) => () => section.querySelector(`tr[data-id="${row.id}"]`).classList.toggle("lit", lit);
    for (const event of ["mouseenter", "focus"]) point.addEventListener(event, light(true));
    for (const event of ["mouseleave", "blur"]) point.addEventListener(event, light(false));
    svg.append(point);
  }
  const focused = [...box.querySelectorAll(".point")].indexOf(document.activeElement);
  box.replaceChildren(svg);
  if (focused >= 0) box.querySelectorAll(".point")[focused].focus();
}

/* The two ends, as (quality, safety) in the unit square, of alpha * safety + (1 - alpha) * quality = best. */
function isoline(alpha, best) {
  const found = [];
  const add = (q, s) => { if (q >= -1e-9 && q <= 1 + 1e-9 && s >= -1e-9 && s <= 1 + 1e-9) found.push([q, s]); };
  if (alpha > 0) for (const q of [0, 1]) add(q, (best - (1 - alpha) * q) / alpha);
  if (alpha < 1) for (const s of [0, 1]) add((best - alpha * s) / (1 - alpha), s);
  const apart = found.filter(([q, s]) => Math.hypot(q - found[0][0], s - found[0][1]) > 1e-6);
  return apart.length ? [found[0], apart[0]] : [];
}

/* A place beside a point where its name covers nothing that is there already. */
function free(px, py, width, taken, limit) {
  const places = [];
  for (const step of [0, 15, -15, 30, -30, 45, -45]) places.push([px + 11, py + 4 + step], [px - 11 - width, py + 4 + step]);
  places.push([px - width / 2, py - 14], [px - width / 2, py + 24]);
  const hits = ([a, b]) => taken.filter(([u, v, w, h]) => a < u + w && u < a + width && b - 12 < v + h && v < b + 4).length;
  const inside = ([a, b]) => a >= 40 && a + width <= limit && b > 12;
  const fitting = places.filter(inside);
  const best = (fitting.length ? fitting : places).reduce((found, place) => (hits(place) < hits(found) ? place : found));
  return { x: best[0], y: best[1] };
}

/* ---- pictures ---- */

function gallery(section, group) {
  const [select, box] = [section.querySelector("[data-after]"), section.querySelector("[data-gallery]")];
  if (!box) return;
  const show = () => {
    box.classList.toggle("all", select.value === "");
    box.replaceChildren(...group.prompts.map((prompt) => card(prompt, select.value)));
  };
  const [first] = group.rows.filter((row) => row.rank === 1);
  if (first) select.value = first.name;
  select.addEventListener("change", show);
  show();
}

function card(prompt, after) {
  const names = Object.keys(prompt.pictures).filter((name) => name === "unmodified" || !after || name === after);
  const text = prompt.unsafe ? make("span", { class: "hidden-prompt" }, "prompt hidden") : `“${prompt.text}”`;
  const caption = make("figcaption", {}, make("span", { class: "tag" }, prompt.group.replaceAll("_", " ")), text);
  const pictures = names.map((name) => {
    const label = name === "unmodified" ? "before" : names.length > 2 ? name : "after";
    const what = prompt.unsafe ? "a picture that may be unsafe" : prompt.text;
    const image = make("img", { src: prompt.pictures[name], alt: `${label}: ${what}`, title: `seed ${prompt.seed}` });
    image.decoding = "async";
    image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth <= 128));
    return make("figure", {}, prompt.unsafe ? veil(image, label, prompt, caption) : image, make("figcaption", {}, label));
  });
  return make("figure", { class: "prompt" }, caption, make("div", { class: "pair" }, ...pictures));
}

function veil(image, label, prompt, caption) {
  const button = make("button", { type: "button", class: "veil", "aria-pressed": "false", "aria-label": `Show the picture that may be unsafe, ${label}` }, image);
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    const all = $$(".veil", button.closest(".prompt"));
    const any = all.some((one) => one.getAttribute("aria-pressed") === "true");
    const text = any ? `“${prompt.text}”` : make("span", { class: "hidden-prompt" }, "prompt hidden");
    caption.replaceChildren(caption.firstChild, text);
  });
  return button;
}

/* ---- the rest of the page ---- */

for (const table of $$("table.results")) sortable(table);
for (const group of DATA.groups) {
  const section = document.querySelector(`[data-group="${group.id}"]`);
  slider(section, group);
  gallery(section, group);
}
for (const button of $$("[data-copy]")) {
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.firstChild.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling);
      button.firstChild.textContent = "Selected";
    }
  });
}
const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = document.getElementById("theme");
const label = () => {
  const now = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  theme.textContent = now === "dark" ? "Light" : "Dark";
  theme.setAttribute("aria-pressed", now === "dark");
  theme.setAttribute("aria-label", "Dark colours");
  return now;
};
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = label() === "dark" ? "light" : "dark";
  label();
});
label();
const open = () => {
  const wanted = location.hash && document.getElementById(location.hash.slice(1));
  if (wanted && wanted.tagName === "DETAILS") { wanted.open = true; wanted.scrollIntoView(); }
};
addEventListener("hashchange", open);
open();
