// Keeps parts of a page current. <section id="tally" data-live="proposal:…"> names the topics that
// it depends on; when the server says that one has changed, the page is fetched once more and its
// parts take over what differs, node by node: focus, scroll, open details and half-filled forms
// stay as they are. Without this file, or without a socket, the page is as it was loaded.
(() => {
  "use strict";
  const parts = () => [...document.querySelectorAll("[data-live][id]")];
  if (!parts().length) return;

  const PAUSE_MS = 700; // between two readings of the page
  const NET_MS = 30000; // a lost message costs no more than this
  const RETRY_MS_MAX = 15000;
  const FIELDS = new Set(["INPUT", "TEXTAREA", "SELECT", "OPTION"]);

  const alike = (a, b) =>
    a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");

  const attributes = (have, want) => {
    const kept = have.nodeName === "DETAILS" ? "open" : "";
    for (const { name, value } of [...want.attributes])
      if (name !== kept && have.getAttribute(name) !== value) have.setAttribute(name, value);
    for (const { name } of [...have.attributes])
      if (name !== kept && !want.hasAttribute(name)) have.removeAttribute(name);
  };

  const take = (have, want) => {
    if (have.nodeType !== Node.ELEMENT_NODE) {
      if (have.data !== want.data) have.data = want.data;
      return;
    }
    if (FIELDS.has(have.nodeName) || have.isEqualNode(want)) return;
    attributes(have, want);
    // First what is gone, so that what stays need not be moved: moving takes the focus away.
    const named = new Set([...want.children].map((child) => child.id));
    for (const child of [...have.children]) if (child.id && !named.has(child.id)) child.remove();
    let at = have.firstChild;
    for (const child of [...want.childNodes]) {
      if (child.id && !(at && at.id === child.id)) {
        const moved = [...have.children].find((node) => node.id === child.id);
        if (moved) at = have.insertBefore(moved, at);
      }
      if (at && alike(at, child)) {
        take(at, child);
        at = at.nextSibling;
      } else {
        have.insertBefore(document.importNode(child, true), at);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  };

  let due = false, reading = false;
  const read = async () => {
    if (reading || document.hidden) { due = true; return; }
    reading = true;
    due = false;
    try {
      const answer = await fetch(location.href, {
        headers: { "X-Live": "1" }, cache: "no-store", redirect: "error",
      });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of parts()) {
          const fresh = page.getElementById(part.id);
          if (fresh) take(part, fresh);
        }
        document.dispatchEvent(new CustomEvent("live:read"));
      }
    } catch { /* the site is away: the socket's return reads again */ }
    window.setTimeout(() => { reading = false; if (due) read(); }, PAUSE_MS);
  };
  document.addEventListener("visibilitychange", () => { if (due) read(); });
  window.setInterval(read, NET_MS);

  let failures = 0;
  const connect = () => {
    const topics = [...new Set(parts().flatMap((part) => part.dataset.live.split(" ")))];
    if (!topics.length) return; // what was watched is over
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live/`);
    socket.addEventListener("open", () => socket.send(JSON.stringify({ watch: topics })));
    socket.addEventListener("message", ({ data }) => {
      failures = 0;
      const said = JSON.parse(data);
      if (said.watching) document.documentElement.dataset.watching = said.watching.length;
      read();
    });
    socket.addEventListener("close", () => {
      delete document.documentElement.dataset.watching;
      const wait = Math.min(1000 * 2 ** failures++, RETRY_MS_MAX);
      window.setTimeout(connect, wait + Date.now() % 500); // not all pages at the same moment
    });
  };
  connect();
})();
