"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.querySelector("main");
const HUES = [212, 24, 145, 352, 275, 48, 182, 318, 95, 240];
const color = (i) => `hsl(${HUES[i % HUES.length]} 72% var(--light))`;
const names = data.curves.map((curve) => curve.name);
const shownCodecs = new Set(names);
const state = { axis: data.axes.length ? data.axes[0].key : "", baseline: data.anchor };

/** An element with attributes, listeners (on…) and children; texts are never read as HTML. */
function h(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "text", "circle", "rect"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style" && !svg) element.style.cssText = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
const percent = (rate) => typeof rate === "number" ? `${rate > 0 ? "+" : ""}${rate.toFixed(1)} %` : rate || "";
const axisOf = (key) => data.axes.find((axis) => axis.key === key);
const metricName = () => axisOf(state.axis).label.split(" [")[0];
const choice = (options, value, change, label) => {
  const select = h("select", { "aria-label": label, onchange: (event) => change(event.target.value) },
    ...options.map(([key, text]) => h("option", { value: key }, text)));
  select.value = value;
  return select;
};

/* --- headline, ranking --------------------------------------------------------------------- */

const headline = h("h1");
const ranking = h("div", { class: "rank card" });

function drawRanking() {
  headline.textContent = data.headlines[state.axis];
  const rows = data.curves.map((curve, i) => ({ name: curve.name, i, rate: curve.rates[state.axis][state.baseline] }))
    .filter((row) => row.rate !== null && shownCodecs.has(row.name));
  const order = (row) => typeof row.rate === "number" ? row.rate : Infinity;
  rows.sort((a, b) => order(a) - order(b));
  const rates = rows.map((row) => row.rate).filter((rate) => typeof rate === "number");
  const low = Math.min(0, ...rates), high = Math.max(0, ...rates), span = high - low || 1;
  const place = (rate) => 10 + 68 * (rate - low) / span;
  ranking.replaceChildren(...rows.flatMap(({ name, i, rate }) => {
    const number = typeof rate === "number";
    const end = number ? place(rate) : place(0), zero = place(0);
    return [
      h("span", {}, name),
      h("div", { class: "track", style: `--color: ${color(i)}` },
        number ? h("div", { class: "fill", style: `left: ${Math.min(end, zero)}%; width: ${Math.abs(end - zero)}%` }) : null,
        h("div", { class: "zero", style: `left: ${zero}%` }),
        h("span", { class: "value", style: `left: ${Math.max(end, zero)}%` }, percent(rate))),
    ];
  }));
}

/* --- curves -------------------------------------------------------------------------------- */

const chart = h("div", { class: "chart card" });
let logarithmic = true;

function ticks(low, high, log) {
  if (log) {
    const out = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const digit of [1, 2, 5]) out.push(digit * 10 ** power);
    return out.filter((tick) => tick >= low && tick <= high);
  }
  const raw = (high - low) / 6, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((f) => f * unit).find((s) => s >= raw);
  const out = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + 1e-9; tick += step) out.push(tick);
  return out;
}
const short = (value) => String(+value.toPrecision(4));

/** A curve's quality at a rate, between its points linear over log rate; null outside of them. */
function valueAt(points, bpp) {
  for (let i = 1; i < points.length; i++) {
    const [x0, y0] = points[i - 1], [x1, y1] = points[i];
    if (bpp >= x0 && bpp <= x1) return x1 === x0 ? y1 : y0 + (y1 - y0) * Math.log(bpp / x0) / Math.log(x1 / x0);
  }
  return null;
}

function drawChart() {
  const W = Math.max(320, Math.min(1000, chart.clientWidth || 900)), H = Math.max(280, Math.min(460, W * 0.6));
  const left = 44, right = 12, top = 10, bottom = 42;
  const used = data.curves.map((curve, i) => ({ curve, i, points: curve.points[state.axis] }))
    .filter((c) => c.points.length && shownCodecs.has(c.curve.name));
  chart.replaceChildren();
  if (!used.length) return chart.append(h("p", { class: "soft" }, "No codec is chosen."));
  const xs = used.flatMap((c) => c.points.map((p) => p[0])), ys = used.flatMap((c) => c.points.map((p) => p[1]));
  const x0 = logarithmic ? Math.min(...xs) / 1.06 : 0, x1 = Math.max(...xs) * 1.05;
  const padding = 0.05 * (Math.max(...ys) - Math.min(...ys)) || 1;
  const y0 = Math.min(...ys) - padding, y1 = Math.max(...ys) + padding;
  const fx = logarithmic ? Math.log : (x) => x;
  const px = (x) => left + (W - left - right) * (fx(x) - fx(x0)) / (fx(x1) - fx(x0));
  const py = (y) => H - bottom - (H - top - bottom) * (y - y0) / (y1 - y0);
  const xTicks = ticks(x0, x1, logarithmic), yTicks = ticks(y0, y1, false);
  const hair = h("line", { class: "hair", y1: top, y2: H - bottom, visibility: "hidden" });
  const mark = h("circle", { r: 6, visibility: "hidden" });
  const svg = h("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${metricName()} over bits per pixel` },
    ...xTicks.flatMap((x) => [h("line", { class: "grid", x1: px(x), x2: px(x), y1: top, y2: H - bottom }),
      h("text", { x: px(x), y: H - bottom + 16, "text-anchor": "middle" }, short(x))]),
    ...yTicks.flatMap((y) => [h("line", { class: "grid", x1: left, x2: W - right, y1: py(y), y2: py(y) }),
      h("text", { x: left - 6, y: py(y) + 4, "text-anchor": "end" }, short(y))]),
    h("text", { x: (left + W) / 2, y: H - 6, "text-anchor": "middle" }, "bits per pixel"),
    h("text", { x: left + 6, y: top + 12 }, axisOf(state.axis).label),
    ...used.map(({ curve, i, points }) => h("g", { style: `--color: ${color(i)}`, "data-codec": curve.name },
      h("path", {
        class: (curve.name.startsWith("licodec") ? "licodec " : "") + (curve.measured ? "" : "reference"),
        d: points.map((p, k) => `${k ? "L" : "M"}${px(p[0]).toFixed(1)} ${py(p[1]).toFixed(1)}`).join(""),
      }),
      ...points.map((p) => h("circle", { cx: px(p[0]), cy: py(p[1]), r: 3 })))),
    hair, mark);
  const tip = h("div", { class: "tip", hidden: true });
  chart.append(svg, tip);

  const hide = () => { tip.hidden = true; hair.setAttribute("visibility", "hidden"); mark.setAttribute("visibility", "hidden"); };
  const show = (event) => {
    const box = svg.getBoundingClientRect(), scale = W / box.width;
    const mx = (event.clientX - box.left) * scale, my = (event.clientY - box.top) * scale;
    if (mx < left || mx > W - right) return hide();
    let near = null;
    for (const c of used) for (const p of c.points) {
      const distance = Math.hypot(px(p[0]) - mx, py(p[1]) - my);
      if (!near || distance < near.distance) near = { c, p, distance };
    }
    const at = near.distance < 24 ? near.p[0]
      : Math.exp(logarithmic ? fx(x0) + (mx - left) / (W - left - right) * (fx(x1) - fx(x0))
        : Math.log(x0 + (mx - left) / (W - left - right) * (x1 - x0)));
    const close = near.distance < 24;
    const rows = used.map((c) => ({ c, value: close && c === near.c ? near.p[1] : valueAt(c.points, at) }))
      .filter((row) => row.value !== null).sort((a, b) => b.value - a.value);
    tip.replaceChildren(h("div", {}, `${at.toFixed(3)} bpp`), h("table", {}, ...rows.map(({ c, value }) =>
      h("tr", { class: close && c === near.c ? "near" : null },
        h("td", {}, h("span", { class: "dot", style: `--color: ${color(c.i)}` })), h("td", {}, c.curve.name),
        h("td", {}, value.toFixed(2)),
        h("td", {}, close && c === near.c && near.p[2] !== null ? `quality ${near.p[2]}` : "")))));
    tip.hidden = false;
    const room = chart.clientWidth - tip.offsetWidth - 8, x = (event.clientX - chart.getBoundingClientRect().left);
    tip.style.left = `${Math.max(4, x + 18 > room ? x - tip.offsetWidth - 18 : x + 18)}px`;
    hair.setAttribute("x1", px(at)); hair.setAttribute("x2", px(at)); hair.setAttribute("visibility", "visible");
    mark.setAttribute("visibility", close ? "visible" : "hidden");
    if (close) {
      mark.setAttribute("cx", px(near.p[0])); mark.setAttribute("cy", py(near.p[1]));
      mark.setAttribute("style", `--color: ${color(near.c.i)}`);
    }
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}

/* --- tables -------------------------------------------------------------------------------- */

/** A table whose columns sort by a click on their titles; cells are texts or numbers. */
function sortable(titles, rows, format = (value) => value, mark = () => null) {
  const body = h("tbody");
  let by = 0, up = true;
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : (typeof b === "number") - (typeof a === "number") || String(a).localeCompare(String(b), undefined, { numeric: true });
  const heads = titles.map((title, i) => h("th", { scope: "col" }, h("button", { onclick: () => {
    up = by === i ? !up : true;
    by = i;
    fill();
  } }, title)));
  function fill() {
    heads.forEach((head, i) => i === by ? head.setAttribute("aria-sort", up ? "ascending" : "descending") : head.removeAttribute("aria-sort"));
    const sorted = [...rows].sort((a, b) => (up ? 1 : -1) * compare(a[by], b[by]));
    body.replaceChildren(...sorted.map((row) => h("tr", {}, ...row.map((cell, i) =>
      h("td", { class: mark(row, i) }, cell === null || cell === undefined ? "" : format(cell, i))))));
  }
  fill();
  return h("div", { class: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, ...heads)), body));
}

function plain(titles, lines) {
  return h("div", { class: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, ...titles.map((title) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, ...lines.map((line) => h("tr", {}, ...line.map((cell) => h("td", {}, cell)))))));
}

const perImage = h("div", { id: "per-image" });
function drawPerImage() {
  const codecs = names.filter((name) => name !== data.anchor && shownCodecs.has(name) && data.images.some((image) => name in image.rates[state.axis]));
  const rows = data.images.map((image) => [image.name, ...codecs.map((codec) => image.rates[state.axis][codec])]);
  const least = (row) => Math.min(...row.slice(1).filter((rate) => typeof rate === "number"));
  perImage.replaceChildren(sortable(["image", ...codecs], rows, (cell, i) => i ? percent(cell) : cell,
    (row, i) => i && row[i] === least(row) ? "best" : null));
}

function everyFile() {
  const [first] = names.filter((name) => data.rows[name].length);
  const place = h("div");
  const digits = { bpp: 4, "psnr-rgb": 2, "ms-ssim-rgb": 4, ssimulacra2: 1, encoding_time: 3, decoding_time: 3 };
  const used = data.columns.map((_, i) => i).filter((i) => names.some((name) => data.rows[name].some((row) => row[i] !== null)));
  const draw = (name) => place.replaceChildren(sortable(used.map((i) => data.columns[i]), data.rows[name].map((row) => used.map((i) => row[i])),
    (cell, i) => typeof cell === "number" && data.columns[used[i]] in digits ? cell.toFixed(digits[data.columns[used[i]]]) : String(cell)));
  const codecs = names.filter((name) => data.rows[name].length).map((name) => [name, name]);
  const details = h("details", { id: "files" }, h("summary", {}, "Every file that was measured"),
    h("div", { class: "bar" }, choice(codecs, first, draw, "Codec")), place);
  details.addEventListener("toggle", () => details.open && !place.firstChild && draw(first));
  return details;
}

/* --- comparison ---------------------------------------------------------------------------- */

function comparison() {
  let current, a, b, split = 50, zoom = 1, x = 0, y = 0, alone = null, timer = null;
  const image = (side) => h("img", { alt: side, draggable: "false" });
  const imageA = image("left"), imageB = image("right");
  const tagA = h("span", { class: "tag a" }), tagB = h("span", { class: "tag b" });
  const divider = h("div", { class: "divider" });
  const layerA = h("div", { class: "layer left" }, imageA), layerB = h("div", { class: "layer right" }, imageB);
  const stage = h("div", { class: "stage", tabindex: "0", "aria-label": "Two codecs, side by side" }, layerA, layerB, tagA, tagB, divider);
  const range = h("input", { type: "range", min: 0, max: 100, step: 0.1, value: 50, "aria-label": "Divider", oninput: () => { split = +range.value; alone = null; draw(); } });
  const selectA = h("select", { "aria-label": "Left" }), selectB = h("select", { "aria-label": "Right" });
  const factsA = h("div", { class: "soft" }), factsB = h("div", { class: "soft" });
  const flicker = h("button", { "aria-pressed": "false", onclick: () => timer ? stop() : start() }, "Flicker");
  const original = h("button", { "aria-pressed": "false", onclick: () => { stop(); alone = alone === "original" ? null : "original"; draw(); } }, "Original");

  /** Give an image what it shows, once: the same again would be loaded again. */
  function put(image, shown) {
    if (image.shown === shown) return;
    image.shown = shown;
    image.src = shown.src;
  }
  function facts(shown) {
    if (!shown.bytes) return "as it was given to the codecs";
    const quality = shown.scores;
    return [`${shown.bytes.toLocaleString("en")} bytes`, `${shown.bpp.toFixed(3)} bpp`, `PSNR ${quality["psnr-rgb"].toFixed(2)} dB`,
      quality["ms-ssim-rgb"] === null ? null : `MS-SSIM ${quality["ms-ssim-rgb"].toFixed(4)}`,
      quality.ssimulacra2 === null ? null : `SSIMULACRA 2 ${quality.ssimulacra2.toFixed(1)}`, `quality ${shown.quality}`,
    ].filter(Boolean).join(", ");
  }
  function draw() {
    const left = alone === "original" ? current.shown[0] : a;
    put(imageA, left);
    put(imageB, b);
    const part = alone === null ? split : alone === "b" ? 0 : 100;
    stage.style.setProperty("--split", `${part}%`);
    divider.hidden = alone !== null;
    range.value = split;
    range.setAttribute("aria-valuetext", `${Math.round(split)} % ${a.codec}`);
    tagA.textContent = left.codec;
    tagB.textContent = b.codec;
    tagA.hidden = part === 0; tagB.hidden = part === 100;
    factsA.textContent = facts(a); factsB.textContent = facts(b);
    const move = `translate(${x}px, ${y}px) scale(${zoom})`;
    imageA.style.transform = imageB.style.transform = move;
    const pixels = zoom * stage.clientWidth * devicePixelRatio / (imageA.naturalWidth || 1);
    stage.classList.toggle("sharp", pixels >= 2);
    stage.style.touchAction = zoom > 1 ? "none" : "pan-y";  // a finger scrolls the page until there is something to move
    original.setAttribute("aria-pressed", String(alone === "original"));
    flicker.setAttribute("aria-pressed", String(timer !== null));
  }
  function fit() { zoom = 1; x = y = 0; draw(); }
  function bound() {
    const box = stage.getBoundingClientRect();
    x = Math.min(0, Math.max(box.width * (1 - zoom), x));
    y = Math.min(0, Math.max(box.height * (1 - zoom), y));
  }
  /** Zoom by a factor; the point under (cx, cy) of the stage stays where it is. */
  function zoomBy(factor, cx, cy) {
    const next = Math.min(32, Math.max(1, zoom * factor));
    x = cx - (cx - x) * next / zoom;
    y = cy - (cy - y) * next / zoom;
    zoom = next;
    bound();
    draw();
  }
  const middle = (factor) => zoomBy(factor, stage.clientWidth / 2, stage.clientHeight / 2);
  const toggle = () => { alone = alone === "a" ? "b" : "a"; draw(); };
  function start() { timer = setInterval(toggle, 450); toggle(); }
  function stop() { clearInterval(timer); timer = null; alone = null; draw(); }
  function actual() {
    zoom = 1;
    zoomBy(Math.max(1, imageA.naturalWidth / devicePixelRatio / stage.clientWidth), stage.clientWidth / 2, stage.clientHeight / 2);
  }

  const pointers = new Map();
  let dragging = null;
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    dragging = event.target === divider || (zoom === 1 && event.pointerType !== "touch") ? "split" : "image";
    if (dragging === "split") splitAt(event);
  });
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const box = stage.getBoundingClientRect();
    if (pointers.size === 2) {
      const [other] = [...pointers.entries()].filter(([id]) => id !== event.pointerId).map(([, e]) => e);
      const distance = (e) => Math.hypot(e.clientX - other.clientX, e.clientY - other.clientY) || 1;
      zoomBy(distance(event) / distance(before), (event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top);
    } else if (dragging === "split") splitAt(event);
    else {
      x += event.clientX - before.clientX;
      y += event.clientY - before.clientY;
      bound();
      draw();
    }
    pointers.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => pointers.delete(event.pointerId));
  function splitAt(event) {
    const box = stage.getBoundingClientRect();
    split = Math.min(100, Math.max(0, 100 * (event.clientX - box.left) / box.width));
    if (timer) stop();
    alone = null;
    draw();
  }
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== stage) return;  // the page scrolls until the image is clicked
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    zoomBy(Math.exp(-event.deltaY * 0.002), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  stage.addEventListener("dblclick", fit);
  const keys = {
    f: () => { if (timer) stop(); toggle(); }, o: () => original.click(), s: () => stop(), Escape: () => stop(),
    "+": () => middle(1.5), "=": () => middle(1.5), "-": () => middle(1 / 1.5), 0: fit, 1: actual,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || ["SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
    if (keys[event.key]) keys[event.key]();
  });

  function side(select, set) {
    select.addEventListener("change", () => { set(current.shown[+select.value]); alone = null; draw(); });
  }
  side(selectA, (shown) => { a = shown; });
  side(selectB, (shown) => { b = shown; });
  function open(index) {
    const before = current && { a: a.codec, b: b.codec };
    current = data.comparisons[index];
    const find = (codec) => current.shown.find((shown) => shown.codec === codec);
    const own = current.shown.find((shown) => shown.codec.startsWith("licodec"));
    const peer = find("jpeg") || current.shown.find((shown) => shown.bytes && shown !== own);
    a = (before && find(before.a)) || peer || current.shown[0];
    b = (before && find(before.b)) || own || current.shown[current.shown.length - 1];
    for (const [select, shown] of [[selectA, a], [selectB, b]]) {
      select.replaceChildren(...current.shown.map((s, i) => h("option", { value: i }, s.codec)));
      select.value = current.shown.indexOf(shown);
    }
    imageA.onload = () => {
      stage.style.aspectRatio = `${imageA.naturalWidth} / ${imageA.naturalHeight}`;
      stage.style.maxWidth = `min(100%, ${85 * imageA.naturalWidth / imageA.naturalHeight}vh)`;
      bound();
      draw();
      imageA.onload = null;
    };
    fit();
  }
  open(0);
  addEventListener("resize", () => { bound(); draw(); });
  return [
    h("h2", {}, "Two codecs at the same size"),
    h("div", { class: "bar" },
      choice(data.comparisons.map((c, i) => [i, c.image]), 0, (i) => open(+i), "Image"),
      h("button", { onclick: () => middle(1.5), "aria-label": "Zoom in" }, "+"),
      h("button", { onclick: () => middle(1 / 1.5), "aria-label": "Zoom out" }, "−"),
      h("button", { onclick: actual }, "1:1"), h("button", { onclick: fit }, "Fit"), flicker, original),
    h("div", { class: "sides" }, h("div", {}, selectA, factsA), h("div", {}, selectB, factsB)),
    stage, range,
    h("p", { class: "soft keys" }, "Drag the divider. Keys: ", h("kbd", {}, "F"), " flickers between the two, ", h("kbd", {}, "O"),
      " shows the original, ", h("kbd", {}, "S"), " brings the divider back, ", h("kbd", {}, "+"), " ", h("kbd", {}, "−"), " ", h("kbd", {}, "1"),
      " ", h("kbd", {}, "0"), " zoom. The wheel zooms once the image was clicked."),
  ];
}

/* --- the page ------------------------------------------------------------------------------ */

function draw() {
  drawRanking();
  drawChart();
  drawPerImage();
  for (const text of document.querySelectorAll(".metric")) text.textContent = metricName();
}

const theme = h("button", { onclick: () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
} }, "Light or dark");
main.append(h("header", {}, h("span", {}, data.title), theme));
if (data.axes.length) {
  const metric = choice(data.axes.map((axis) => [axis.key, axis.label.split(" [")[0]]), state.axis,
    (key) => { state.axis = key; draw(); }, "Metric");
  metric.id = "metric";
  const baseline = choice(names.map((name) => [name, name]), state.baseline, (name) => { state.baseline = name; drawRanking(); }, "Baseline");
  const scale = h("input", { type: "checkbox", id: "log", onchange: () => { logarithmic = scale.checked; drawChart(); } });
  scale.checked = true;
  const legend = h("div", { class: "bar", id: "codecs" }, ...data.curves.map((curve, i) => {
    const box = h("input", { type: "checkbox", onchange: () => { shownCodecs[box.checked ? "add" : "delete"](curve.name); draw(); } });
    box.checked = true;
    return h("label", { title: curve.description }, box, h("span", { class: "dot", style: `--color: ${color(i)}` }), curve.name);
  }));
  main.append(headline,
    h("div", { class: "bar" }, h("label", {}, "Metric", metric), h("label", {}, "Bits beyond those of", baseline)), ranking,
    h("h2", {}, "Rate and quality"), legend, chart,
    h("div", { class: "bar" }, h("label", {}, scale, "logarithmic rate")));
}
if (data.comparisons.length) main.append(...comparison());
if (data.axes.length && data.images.length)
  main.append(h("h2", {}, "BD-rate of each image against ", data.anchor, ", ", h("span", { class: "metric" })), perImage);
for (const [title, titles, lines] of data.tables) main.append(h("h2", {}, title), plain(titles, lines));
if (names.some((name) => data.rows[name].length)) main.append(everyFile());
main.append(h("footer", {}, h("p", {}, data.legend), data.provenance.length
  ? h("details", {}, h("summary", {}, "Where these numbers come from"), plain(data.provenanceColumns, data.provenance)) : null));
if (data.axes.length) {
  draw();
  let width = chart.clientWidth;
  addEventListener("resize", () => { if (chart.clientWidth !== width) { width = chart.clientWidth; drawChart(); } });
}
})();
