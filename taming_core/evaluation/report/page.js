"use strict";
const byId = id => document.getElementById(id);
const dialog = byId("large");
let shots = [], at = 0;

function show(number) {
  at = (number + shots.length) % shots.length;
  const link = shots[at], image = link.querySelector("img"), owner = link.closest("article, li");
  byId("picture").src = image.src;
  byId("picture").alt = image.alt;
  byId("about-name").textContent = owner.querySelector("bdi").textContent;
  byId("about-label").textContent = [link.dataset.label, link.dataset.prompt].filter(Boolean).join(", ");
  byId("about-scores").textContent = link.dataset.scores;
  byId("about-failures").textContent = link.dataset.failures;
  const file = link.getAttribute("href");
  byId("file").hidden = file.startsWith("#");
  byId("file").href = file;
}

document.addEventListener("click", event => {
  const link = event.target.closest("a.open");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  shots = [...link.closest("section").querySelectorAll("a.open")].filter(a => a.offsetParent);
  show(shots.indexOf(link));
  dialog.showModal();
});
byId("previous").addEventListener("click", () => show(at - 1));
byId("next").addEventListener("click", () => show(at + 1));
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", event => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) { event.preventDefault(); show(at + step); }
});
dialog.addEventListener("close", () => shots[at].focus());

function sort(table, column, heading) {
  const descending = heading.ariaSort !== "descending" && (heading.ariaSort === "ascending" || column > 0);
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const value = row => row.cells[column].dataset.value;
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === undefined && y === undefined) return a.cells[column].textContent.localeCompare(b.cells[column].textContent) * (descending ? -1 : 1);
    if (x === undefined || y === undefined) return x === undefined ? 1 : -1;  // what was not measured comes last
    return (x - y) * (descending ? -1 : 1);
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
}
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes.length ? heading.childNodes : ["name"]);
    heading.append(button);
    button.addEventListener("click", () => sort(table, column, heading));
  });
}

const by = byId("by");
if (by) {
  by.form.hidden = false;
  by.addEventListener("change", () => {
    for (const list of document.querySelectorAll(".worst")) list.hidden = list.id !== `worst-${by.value}`;
    for (const image of byId(`worst-${by.value}`).querySelectorAll("img[data-of]:not([src])")) image.src = byId(image.dataset.of).src;
  });
}
