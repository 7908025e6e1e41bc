// Comfort only: the page says everything without it. Sorts tables, filters columns, copies text, unfolds for paper.
"use strict";
document.documentElement.classList.add("js");
for (const head of document.querySelectorAll("table.sortable thead th")) {
  head.tabIndex = 0;
  const sort = () => {
    const table = head.closest("table"), place = head.cellIndex, down = head.getAttribute("aria-sort") === "ascending";
    const rows = [...table.tBodies[0].rows].map((row) => [row.cells[place].dataset.value ?? row.cells[place].textContent.trim(), row]);
    const order = (a, b) => (isNaN(a) || isNaN(b) || a === "" || b === "" ? a.localeCompare(b) : a - b);
    rows.sort((a, b) => (down ? order(b[0], a[0]) : order(a[0], b[0])));
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    table.tBodies[0].append(...rows.map((entry) => entry[1]));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
}
const filter = document.querySelector("#filter");
if (filter) filter.addEventListener("input", () => {
  const wanted = filter.value.toLowerCase();
  for (const strip of document.querySelectorAll(".strip")) strip.hidden = !strip.textContent.toLowerCase().includes(wanted);
});
// A chart's mark says what it is; a trial's marks and its row in the table belong together.
const tip = document.body.appendChild(document.createElement("div"));
tip.id = "tip"; tip.hidden = true;
const together = (target, on) => {
  const number = target.closest("[data-trial]")?.dataset.trial;
  if (number !== undefined) for (const mark of document.querySelectorAll(`[data-trial="${number}"]`)) mark.classList.toggle("on", on);
};
document.addEventListener("pointerover", (event) => {
  together(event.target, true);
  const mark = event.target.closest("[data-tip]");
  tip.hidden = !mark;
  if (mark) tip.textContent = mark.dataset.tip;
});
document.addEventListener("pointerout", (event) => together(event.target, false));
document.addEventListener("pointermove", (event) => {
  tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 4)}px`;
  tip.style.top = `${event.clientY + 14}px`;
});
const wantedTrials = document.querySelector("#filter-trials");
if (wantedTrials) wantedTrials.addEventListener("input", () => {
  const wanted = wantedTrials.value.toLowerCase();
  for (const row of document.querySelector("#trials").tBodies[0].rows) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
    for (const mark of document.querySelectorAll(`.plot [data-trial="${row.dataset.trial}"]`)) mark.style.display = row.hidden ? "none" : "";
  }
});
for (const button of document.querySelectorAll("button.copy"))
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.of).textContent);
      button.textContent = "copied";
    } catch { getSelection().selectAllChildren(document.getElementById(button.dataset.of)); }
  });
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("section:not(#reasons) > details")) part.open = true; });
