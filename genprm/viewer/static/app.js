// Maths, and the progress of a file that is still being read. What models wrote is only ever set as text.
"use strict";

const LONGEST = 4000; // characters of a formula: longer ones stay as they are written
const MOST = 400; // formulas of a page
// $...$ only where something in it is no ordinary text: most dollars are prices.
const FORMULA = /\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\]|\\\(([\s\S]+?)\\\)|\$((?=(?:\\.|[^$\\\n])*[\\^_{])(?:\\.|[^$\\\s])(?:(?:\\.|[^$\\\n])*(?:\\.|[^$\\\s]))?)\$/g;
let typeset = 0;

function typesetIn(element) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) texts.push(walker.currentNode);
  for (const node of texts) {
    const text = node.data;
    const parts = document.createDocumentFragment();
    let end = 0;
    for (const match of text.matchAll(FORMULA)) {
      const formula = match[1] ?? match[2] ?? match[3] ?? match[4];
      if (formula.length > LONGEST || typeset >= MOST) continue;
      const place = document.createElement("span");
      try {
        katex.render(formula, place, {
          displayMode: match[1] !== undefined || match[2] !== undefined,
          throwOnError: true, trust: false, maxExpand: 200, maxSize: 20, strict: "ignore",
        });
      } catch {
        continue; // it stays as it is written
      }
      typeset += 1;
      parts.append(text.slice(end, match.index), place);
      end = match.index + match[0].length;
    }
    if (end) {
      parts.append(text.slice(end));
      node.replaceWith(parts);
    }
  }
}

async function watchProgress(line) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    let found;
    try {
      found = await (await fetch("/progress")).json();
    } catch {
      continue; // the viewer has ended, perhaps for a moment
    }
    const { share, rows, complete } = found;
    if (complete) {
      line.textContent = `${rows} rows: all of the file has been read now. Reload for what was not there yet.`;
      return;
    }
    line.textContent = `${rows} rows so far, ${Math.round(100 * share)} % read.`;
  }
}

for (const element of document.querySelectorAll(".math")) typesetIn(element);
if (location.hash) {
  const step = document.getElementById(location.hash.slice(1));
  if (step instanceof HTMLDetailsElement) step.open = true;
}
const progress = document.querySelector("#progress[data-open]");
if (progress) watchProgress(progress);
