// The page of a run. It asks again when the last answer is drawn, ten times a second at most: a slow
// browser or network gets fewer answers, and each is the newest there is.
"use strict";

const PERIOD_MS = 100, PATIENCE_MS = 3000, SILENT_S = 1, TRIES = 3;
const FLOOR_MS = 0.1, DECADES = 5; // of the bars' scale
const at = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let token = sessionStorage.getItem("token") ?? "";
let pictureSeq = null, pictureUrl = null;
let outcome = null; // what the control process confirmed last

function keep(found) { // for a reload of this tab
  token = found;
  sessionStorage.setItem("token", token);
}

function keepFromAddress() { // behind '#', which no server and no log sees
  if (location.hash) keep(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}

function headers(more) {
  return token ? { Authorization: `Bearer ${token}`, ...more } : { ...more };
}

async function ask(path, options = {}) {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const answer = await fetch(path, { cache: "no-store", signal, ...options, headers: headers(options.headers) });
  const said = answer.headers.get("Content-Type") === "application/json"; // also with an error's status
  if (!answer.ok && !said) throw Object.assign(new Error(await answer.text()), { status: answer.status });
  return answer;
}

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

const number = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const ms = (value) => number(value, value < 10 ? 2 : value < 100 ? 1 : 0);

function pairs(list, entries) {
  list.replaceChildren(...entries.map(([name, text]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", text));
    return pair;
  }));
}

function onScale(value) { // percent
  return 100 * Math.min(Math.max(Math.log10(value / FLOOR_MS) / DECADES, 0), 1);
}

function bar(row) {
  const track = element("div", undefined, "track");
  for (const name of ["p99", "p50"]) {
    const part = element("b", undefined, name);
    part.style.width = `${onScale(row[name])}%`;
    track.append(part);
  }
  const mark = element("b", undefined, "max");
  mark.style.left = `calc(${onScale(row.max)}% - 2px)`;
  track.append(mark);
  return track;
}

function times(rows, kind) {
  return Object.entries(rows).map(([name, row]) => {
    const line = element("tr", undefined, kind);
    line.append(element("td", name), ...["last", "p50", "p99", "max"].map((key) => element("td", ms(row[key]))));
    const cell = element("td", undefined, "bar");
    cell.append(bar(row));
    line.append(cell);
    return line;
  });
}

function joint(row, temperatureMax) {
  const line = element("tr");
  const hot = row.temperature_c > temperatureMax ? "wrong" : "";
  line.append(
    element("td", row.name),
    element("td", number(row.position_rad, 3)),
    element("td", number(row.command_rad, 3)),
    element("td", number(row.temperature_c, 0), hot),
    element("td", number(row.voltage_v, 1)),
    element("td", number(row.current_a, 2)),
    element("td", row.alarm ?? "–", row.alarm ? "alarm wrong" : "alarm"),
  );
  return line;
}

function change(row) {
  const line = element("li");
  line.append(element("span", `${number(row.ago_s, 1)} s ago`), element("span", row.state), element("span", row.reason));
  return line;
}

function draw(now) {
  const last = now.outcome.state ? now.outcome : now.safety.at(-1);
  if (outcome && outcome.run !== now.outcome.run && outcome.run) told(""); // of a run before
  outcome = now.outcome;
  at("state").dataset.level = last.state;
  at("state-word").textContent = last.state;
  at("state-reason").textContent = last.reason;
  at("robot").textContent = now.robot + (now.dry_run ? " (dry run)" : "");
  at("policy").textContent = now.policy;
  at("instruction").textContent = now.instruction;
  const { frame, condition, chunk, state } = now.rates_hz;
  pairs(at("rates"), [["camera", frame], ["System 2", condition], ["System 1", chunk], ["control", state]]
    .map(([name, hz]) => [name, `${number(hz, 1)} Hz`]));
  at("times").tBodies[0].replaceChildren(...times(now.ages_ms, "age"), ...times(now.stages_ms, "stage"));
  at("joints").tBodies[0].replaceChildren(...now.joints.map((row) => joint(row, now.temperature_max_c)));
  pairs(at("missed"), [...Object.entries(now.missed_ticks ?? {}), ["of", now.ticks ?? "–"]]);
  at("changes").replaceChildren(...now.safety.toReversed().map(change));
  const torque = outcome.text || now.torque_fault;
  if (outcome.text) told(outcome.text, !outcome.confirmed);
  alarm(torque && !outcome.confirmed ? torque : (now.silent_s > SILENT_S
    ? `The policy's process has been silent for ${number(now.silent_s, 1)} s. What is below is as old.` : ""));
  document.body.classList.toggle("stale", now.silent_s > SILENT_S);
}

function alarm(text) {
  at("alert").hidden = !text;
  at("alert").textContent = text;
}

async function showPicture(seq) {
  if (seq === null || seq === pictureSeq) return;
  const url = URL.createObjectURL(await (await ask("picture")).blob());
  at("picture").src = url;
  if (pictureUrl) URL.revokeObjectURL(pictureUrl);
  [pictureSeq, pictureUrl] = [seq, url];
}

async function look() {
  try {
    const now = await (await ask("live")).json();
    draw(now);
    await showPicture(now.picture);
    return PERIOD_MS;
  } catch (error) {
    at("key").hidden = error.status !== 403;
    alarm(error.status ? error.message : lost());
    document.body.classList.add("stale");
    return 10 * PERIOD_MS;
  }
}

function lost() { // a run that ends confirms it first: silence confirms nothing
  if (outcome?.confirmed) return `The run has ended. ${outcome.text}.`;
  return "No connection. NOT CONFIRMED that torque is off: cut the motors' power, or look at the robot's terminal.";
}

function told(text, wrong) {
  at("pressed").textContent = text;
  at("pressed").className = wrong ? "wrong" : "";
}

async function press() {
  told("stopping ...", true);
  let why = "";
  for (let n = 0; n < TRIES; n++) {
    try {
      const found = await (await ask("estop", { method: "POST", headers: { "X-V2A-Button": "1" } })).json();
      return told(found.text, !found.confirmed);
    } catch (error) {
      why = error.status ? error.message : "no connection";
    }
  }
  told(`NOT CONFIRMED: cut the motors' power (${why})`, true);
}

async function main() {
  keepFromAddress();
  addEventListener("hashchange", keepFromAddress);
  at("estop").addEventListener("click", press);
  at("key").addEventListener("submit", (event) => {
    event.preventDefault();
    keep(at("token").value.trim());
    at("key").hidden = true;
  });
  for (;;) {
    const began = performance.now();
    const period = await look();
    await pause(Math.max(period - (performance.now() - began), 10));
  }
}

main();
