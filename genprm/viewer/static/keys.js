// Keys. Not deferred, as the rest is: whoever presses one while the page is still coming is answered when it is there.
"use strict";

function follow(selector) {
  const link = document.querySelector(selector);
  if (link) link.click();
}

function moveTo(step) {
  const links = [...document.querySelectorAll("a.row")];
  const now = links.indexOf(document.activeElement);
  const next = links[Math.min(links.length - 1, Math.max(0, now + step))];
  if (next) next.focus();
}

const KEYS = {
  n: () => follow("a[rel=next]"),
  p: () => follow("a[rel=prev]"),
  u: () => follow("a[rel=up]"),
  j: () => moveTo(1),
  k: () => moveTo(-1),
  o: () => {
    const all = [...document.querySelectorAll("details")];
    const open = all.some((each) => !each.open);
    for (const each of all) each.open = open;
  },
  "/": () => document.querySelector("input[type=search]")?.focus(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  if (document.readyState !== "loading") KEYS[event.key]();
  else document.addEventListener("DOMContentLoaded", () => KEYS[event.key]());
});
