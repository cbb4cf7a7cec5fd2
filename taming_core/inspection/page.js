"use strict";
const byId = id => document.getElementById(id);
const { items, pictures } = JSON.parse(byId("data").textContent);
const CHUNK = 60;  // cards that are made at once, as one scrolls
const SVG = "http://www.w3.org/2000/svg";
let found = items, made = 0, at = 0;

function element(name, properties, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function drawn(item) {
  const space = item.space || item.size;
  if (!space || !(item.mask || item.box)) return [];
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${space[0]} ${space[1]}`);
  svg.setAttribute("aria-hidden", "true");
  const add = (name, kind, attributes) => {
    const shape = document.createElementNS(SVG, name);
    shape.setAttribute("class", kind);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    svg.append(shape);
  };
  if (item.mask) add("path", "mask", { d: item.mask });
  if (item.box && item.size) {
    const [x0, y0, x1, y1] = item.box.map((v, n) => v * space[n % 2] / item.size[n % 2]);
    add("rect", "box", { x: x0, y: y0, width: x1 - x0, height: y1 - y0 });
  }
  return [svg];
}

function picture(item) {
  if (item.picture === undefined) return element("span", { className: "picture" }, element("span", { className: "missing" }, item.missing || "no picture"));
  const image = element("img", { src: pictures[item.picture], alt: `${item.class || "photo"}, ${item.file}`, decoding: "async" });
  return element("span", { className: "picture" }, image, ...drawn(item));
}

function shown(item) {
  const both = [picture(item)];
  if (item.subject !== undefined) both.push(element("span", { className: "picture subject" }, element("img", { src: pictures[item.subject], alt: "cut out" })));
  return both;
}

const PLACEHOLDER = /(<object>)/;
const marked = text => text.split(PLACEHOLDER).map(part => part === "<object>" ? element("mark", {}, part) : part);
const number = value => Math.abs(value) >= 100 ? value.toFixed(0) : +value.toPrecision(3) + "";
const titled = item => [item.class || item.identity || "photo", item.numbers && item.numbers.score !== undefined ? number(item.numbers.score) : ""].filter(Boolean).join(" ");
const state = item => element("small", { className: `state ${item.dropped ? "dropped" : "kept"}` }, item.dropped ? `dropped: ${item.dropped}` : "kept");

function card(item, place) {
  const words = item.words || item.caption;
  const link = element("a", { href: "#large", className: "open" }, element("span", { className: "pictures" }, ...shown(item)));
  link.dataset.place = place;
  const said = item.override ? [element("small", { className: "said" }, `a person: ${item.override.join(", ")}`)] : [];
  const where = [item.identity, item.split, item.note].filter(Boolean).join(" · ");
  link.append(element("p", {}, element("b", {}, element("bdi", {}, titled(item))), state(item), ...said,
    ...(words ? [element("span", {}, ...marked(words))] : []),
    element("small", {}, element("bdi", {}, item.file), where ? ` · ${where}` : "")));
  return element("article", { className: "card" }, link);
}

function more() {
  const next = found.slice(made, made + CHUNK);
  byId("items").append(...next.map((item, n) => card(item, made + n)));
  made += next.length;
  byId("end").hidden = made >= found.length;
}

const values = { reason: i => [i.reason], class: i => [i.class || ""], identity: i => [i.identity || ""], split: i => [i.split || ""], override: i => i.override || [] };
const text = new Map(items.map(i => [i, [i.file, i.class, i.identity, i.caption, i.words, i.dropped, i.note, ...(i.override || [])].filter(Boolean).join("\n").toLowerCase()]));
const numbers = [...new Set(items.flatMap(i => Object.keys(i.numbers || {})))];

function options(select, some) {
  select.replaceChildren(...some.map(([value, label]) => element("option", { value }, label)));
  select.closest("label").hidden = some.length < 2;
}

function fill() {
  for (const [id, of] of Object.entries(values)) {
    const counts = new Map();
    for (const value of items.flatMap(of)) counts.set(value, (counts.get(value) || 0) + 1);
    const names = [...counts].filter(([value]) => value !== "").sort((a, b) => (b[0] === "kept") - (a[0] === "kept") || b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    const rest = counts.has("") && names.length ? [["=", `unknown (${counts.get("")})`]] : [];
    const any = id === "reason" && counts.has("kept") && names.length > 1 ? [["-", `dropped (${items.length - counts.get("kept")})`]] : [];
    options(byId(id), [["", "all"], ...any, ...names.map(([value, count]) => [`=${value}`, `${value} (${count})`]), ...rest]);
  }
  options(byId("number"), [["", "any"], ...numbers.map(name => [name, name.replaceAll("_", " ")])]);
  options(byId("sort"), [["", "table"], ["file", "file"], ["class", "class"], ["identity", "identity"], ...numbers.map(name => [name, name.replaceAll("_", " ")])]);
}

function fits(item, query, name, low, high) {
  for (const [id, of] of Object.entries(values)) {
    const wanted = byId(id).value;
    if (wanted === "-" ? item.reason === "kept" : wanted && !of(item).includes(wanted.slice(1))) return false;
  }
  if (query.some(word => !text.get(item).includes(word))) return false;
  if (!name) return true;
  const value = (item.numbers || {})[name];
  return value !== undefined && (low === "" || value >= low) && (high === "" || value <= high);
}

function sorted(some, by) {
  if (!by) return some;
  const value = i => numbers.includes(by) ? (i.numbers || {})[by] : i[by];
  const sign = byId("descending").checked ? -1 : 1;
  return some.map((i, n) => [i, n]).sort(([a, m], [b, n]) => {
    const [x, y] = [value(a), value(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined) || m - n;  // the unknown comes last
    return (typeof x === "number" ? x - y : x < y ? -1 : x > y) * sign || m - n;
  }).map(([i]) => i);
}

function apply() {
  const query = byId("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [name, low, high] = ["number", "low", "high"].map(id => byId(id).value);
  byId("between").hidden = !name;
  found = sorted(items.filter(item => fits(item, query, name, low === "" ? "" : +low, high === "" ? "" : +high)), byId("sort").value);
  byId("descending").closest("label").hidden = !byId("sort").value;
  byId("count").textContent = `${found.length} of ${items.length} shown`;
  byId("items").replaceChildren();
  made = 0;
  more();
}

const dialog = byId("large");
function open(place) {
  at = (place + found.length) % found.length;
  const item = found[at];
  byId("stage").replaceChildren(...shown(item));
  byId("about").replaceChildren(element("bdi", {}, titled(item)), " ", state(item));
  byId("words").replaceChildren(...marked(item.words || item.caption || ""));
  byId("place").textContent = `${at + 1} of ${found.length}`;
  const facts = [["file", item.file], ["identity", item.identity], ["split", item.split], ["caption", item.words && item.caption],
    ["a person said", item.override && item.override.join(", ")], ["note", item.note], ...Object.entries(item.numbers || {}).map(([k, v]) => [k.replaceAll("_", " "), number(v)])];
  byId("facts").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}
byId("items").addEventListener("click", event => {
  const link = event.target.closest("a.open");
  if (!link) return;
  event.preventDefault();
  open(+link.dataset.place);
  dialog.showModal();
});
byId("previous").addEventListener("click", () => open(at - 1));
byId("next").addEventListener("click", () => open(at + 1));
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", event => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) { event.preventDefault(); open(at + step); }
  if (event.key === "o") { byId("outlines").checked = !byId("outlines").checked; }
});
dialog.addEventListener("close", () => {
  while (made <= at) more();
  byId("items").children[at].querySelector("a").focus();
});

const form = byId("filters");
form.hidden = false;
form.addEventListener("input", apply);
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("reset", () => setTimeout(apply));
if (innerWidth < 640) byId("more").open = false;
fill();
apply();
new IntersectionObserver(entries => { if (entries.some(e => e.isIntersecting)) more(); }, { rootMargin: "1200px" }).observe(byId("end"));
