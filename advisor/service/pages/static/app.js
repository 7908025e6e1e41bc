"use strict";
// Uploads in parts that a dropped connection does not lose, what-if while one types, and pages that follow a run.
const PART = 4 * 1024 * 1024;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function api(method, path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const document_ = answer.status === 204 ? {} : await answer.json();
  if (!answer.ok) throw Object.assign(new Error(document_.detail || answer.statusText), { status: answer.status });
  return document_;
}

async function send(file, show) {
  const remembered = `upload ${file.name} ${file.size} ${file.lastModified}`;
  let made = null;
  const known = localStorage.getItem(remembered);
  if (known) made = await api("GET", `/v1/datasets/${known}`).catch(() => null);
  if (!made) made = await api("POST", "/v1/datasets", { name: file.name, size: file.size });
  localStorage.setItem(remembered, made.id);
  let received = made.received;
  let failures = 0;
  while (received < file.size) {
    show(received / file.size);
    try {
      const part = file.slice(received, received + PART);
      const answer = await fetch(`/v1/datasets/${made.id}/content`, {
        method: "PATCH", headers: { "Upload-Offset": String(received) }, body: part });
      const told = await answer.json();
      if (answer.status === 409 && told.received !== undefined) { received = told.received; continue; }
      if (!answer.ok && answer.status < 500 && answer.status !== 429) throw Object.assign(new Error(told.detail), { final: true });
      if (answer.ok) { received = told.received; failures = 0; continue; }
    } catch (error) {
      if (error.final) throw error;
    }
    failures += 1;
    if (failures > 60) throw new Error("the connection is gone: drop the same file again later, and it goes on");
    await pause(Math.min(10000, 500 * failures));
  }
  localStorage.removeItem(remembered);
  return made.id;
}

function uploads() {
  const zone = document.getElementById("drop");
  if (!zone) return;
  const field = document.getElementById("file");
  const bar = document.getElementById("progress");
  const says = document.getElementById("says");
  const begin = async (file) => {
    bar.hidden = false;
    says.textContent = `sending ${file.name} ...`;
    try {
      const id = await send(file, (share) => { bar.value = share; });
      location.href = `/datasets/${id}`;
    } catch (error) {
      says.textContent = error.message;
    }
  };
  field.addEventListener("change", () => field.files.length && begin(field.files[0]));
  for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => { event.preventDefault(); if (event.dataTransfer.files.length) begin(event.dataTransfer.files[0]); });
}

function whatIf() {
  const form = document.getElementById("what-if");
  if (!form) return;
  const out = document.getElementById("follows");
  let wanted = 0;
  const ask = async () => {
    const mine = ++wanted;
    await pause(300);
    if (mine !== wanted) return;
    const data = new FormData(form);
    const [fact, value] = [data.get("fact"), data.get("value")];
    if (!value) return;
    const body = data.get("kind") === "fact" ? { facts: { [fact]: value } } : { fixed: { [fact]: plain(value) } };
    try {
      const answer = await api("POST", form.action, body);
      if (mine === wanted) out.textContent = answer.text;
    } catch (error) {
      if (mine === wanted) out.textContent = error.message;
    }
  };
  form.addEventListener("input", ask);
  form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
}

function plain(text) {
  if (text === "true" || text === "false") return text === "true";
  return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

function live() {
  const part = document.querySelector("[data-live]");
  if (!part) return;
  const refresh = async () => {
    const answer = await fetch(part.dataset.live);
    if (answer.ok) part.innerHTML = await answer.text();  // our own page, in which every value is escaped
  };
  if (!part.dataset.events) return;
  const events = new EventSource(part.dataset.events);
  let last = "";
  events.addEventListener(part.dataset.event || "message", (event) => {
    refresh();
    const state = JSON.parse(event.data).state;
    if (["done", "failed", "stopped", "finished"].includes(state)) { events.close(); if (last && last !== state) location.reload(); }
    last = state;
  });
}

uploads();
whatIf();
live();
