// A verification, watched: server-sent events become elements. What models wrote is only ever set as text, but code,
// which the server colours, and escapes.
"use strict";

const EXAMPLE = {
  problem: "A box holds 6 red and 7 blue pens. Ann adds 4 pens. How many pens are in the box?",
  solution: "At first there are 6 + 7 = 13 pens.\n\nAnn adds 4, so that there are 13 + 4 = 18 pens.\n\nThe answer is 18.",
};
const field = (id) => document.getElementById(id);
let running = null;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function color(score, mark) {
  if (score === null) return "score-none";
  const [least, most] = { incorrect: [0, 4], correct: [5, 10] }[mark]; // on its verdict's side of the middle
  return `score-${Math.min(most, Math.max(least, Math.round(10 * score)))}`;
}

function segment({ kind, text, run }) {
  const made = element("div", "segment");
  const outcome = run ? ` (${run.status.replace("_", " ")}, ${Math.round(1000 * run.duration)} ms)` : "";
  made.append(element("h3", "", kind + outcome));
  const body = element(kind === "code" || kind === "output" ? "pre" : "p", "", text || "(nothing printed)");
  body.dir = "auto";
  made.append(body);
  if (kind === "analysis") typesetIn(body);
  if (kind === "code") colored(body, text);
  return made;
}

async function colored(body, text) {
  try {
    const answer = await fetch("/code", { method: "POST", headers: headers(), body: JSON.stringify({ text }) });
    if (!answer.ok) return; // too long: it stays as it is
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    body.replaceWith(page.querySelector(".code"));
  } catch {
    return; // the server has ended: it stays as it is
  }
}

function headers() {
  const made = { "content-type": "application/json" };
  if (field("key").value) made.authorization = `Bearer ${field("key").value}`;
  return made;
}

class Result {
  constructor(steps) {
    this.steps = steps.map((text, index) => this.made(`${index}`, ` ${text}`));
    this.whole = this.made("the solution as a whole", "");
    this.whole.details.hidden = true; // few styles say something of it
    field("result").replaceChildren(...this.parts().map((part) => part.details));
  }

  made(name, text) {
    const details = element("details", "step");
    const summary = element("summary");
    const dot = element("span", "dot");
    const words = element("span", "text");
    words.dir = "auto";
    words.append(element("b", "", name), text);
    const verdict = element("span", "verdict");
    summary.append(dot, words, verdict);
    const rationale = element("div", "rationale");
    details.append(summary, rationale);
    typesetIn(words);
    return { details, dot, verdict, rationale, votes: new Map() };
  }

  parts() {
    return [...this.steps, this.whole];
  }

  begun({ vote, style }) {
    for (const part of this.parts()) {
      if (!part.votes.has(vote)) continue;
      part.votes.get(vote).remove();
      part.votes.delete(vote);
      part.dot.className = "dot";
      part.verdict.textContent = "";
    }
    field("status").textContent = `vote ${vote} begins, style ${style}`;
  }

  segment({ vote, step, segment: part }) {
    this.place(vote, step).append(segment(part));
  }

  place(vote, index) {
    const step = this.parts()[index];
    step.details.hidden = false;
    if (!step.votes.has(vote)) {
      const place = element("section");
      if (Number(field("votes").value) > 1) place.append(element("h3", "soft", `vote ${vote}`));
      step.votes.set(vote, place);
      step.rationale.append(place);
      step.details.open = true;
    }
    return step.votes.get(vote);
  }

  step({ vote, step, said }) {
    const place = this.place(vote, step);
    if (!place.querySelector(".segment")) place.append(...said.segments.map(segment));
    this.judge(step, said.score, said.score === null ? "unscored" : said.score < 0.5 ? "incorrect" : "correct");
  }

  judge(index, score, mark) {
    const { dot, verdict } = this.parts()[index];
    dot.className = `dot ${color(score, mark)}`;
    verdict.className = `verdict ${mark}`;
    verdict.textContent = score === null ? mark : `${mark} ${score.toFixed(3)}`;
  }

  result(row) {
    for (const step of row.steps) this.judge(step.index, step.score, step.verdict ?? "unscored");
    const before = row.first_error < 0 ? row.steps : row.steps.slice(0, row.first_error);
    const settled = before.every((step) => step.score !== null || step.stop_reason === "given");
    const said = !settled ? "no verdict on every step" : row.first_error < 0 ? "no error found" : `first error: step ${row.first_error}`;
    field("status").textContent = `${said} · ${row.usage.completion_tokens} tokens, ${row.usage.code_runs} code runs, ${row.usage.seconds.toFixed(1)} s`;
    if (row.first_error >= 0) this.steps[row.first_error].dot.classList.add("first");
  }

  error({ error }) {
    field("status").textContent = `failed: ${error.message}`;
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const found = /^event: (\w+)\ndata: ([\s\S]*)$/.exec(block);
      if (found) yield [found[1], JSON.parse(found[2])];
    }
  }
}

async function verify() {
  const steps = field("solution").value.split(/\n[ \t]*\n/).map((each) => each.trim()).filter(Boolean);
  const asked = { problem: field("problem").value, steps, votes: Number(field("votes").value), stream: true };
  running = new AbortController();
  field("go").disabled = true;
  field("stop").disabled = false;
  field("status").textContent = "waiting for its turn";
  try {
    const answer = await fetch("/v1/verify", {
      method: "POST", headers: headers(), body: JSON.stringify(asked), signal: running.signal,
    });
    if (!answer.ok) {
      field("key-field").hidden = answer.status !== 401 && field("key-field").hidden;
      throw new Error((await answer.json()).error.message);
    }
    const result = new Result(steps);
    let ended = false;
    for await (const [name, data] of events(answer.body)) {
      ended = name === "result" || name === "error";
      result[name](data);
    }
    if (!ended) throw new Error("the server ended the connection");
  } catch (error) {
    field("status").textContent = running.signal.aborted ? "stopped" : `failed: ${error.message}`;
  } finally {
    field("go").disabled = false;
    field("stop").disabled = true;
  }
}

field("ask").addEventListener("submit", (event) => {
  typeset = 0;
  event.preventDefault();
  verify();
});
field("stop").addEventListener("click", () => running?.abort());
field("example").addEventListener("click", () => {
  field("problem").value = EXAMPLE.problem;
  field("solution").value = EXAMPLE.solution;
});
