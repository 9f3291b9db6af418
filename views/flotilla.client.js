/*
 * The dashboard's own script: says whether the page is live, pauses it, and a few keys. Every page can
 * be read without it. It evaluates nothing and talks to no address of its own.
 */
(() => {
  "use strict";
  const live = document.getElementById("live");
  const state = document.getElementById("connection");
  const pause = document.getElementById("pause");

  /** @param {string} name @param {string} text */
  const show = (name, text) => {
    if (!state || state.dataset.state === name) return;
    state.dataset.state = name;
    state.textContent = text;
  };

  /** How often a refused stream is asked for again. */
  const RETRY_MS = 5000;
  let current = live;
  let opened = 0;
  let paused = false;

  // Taking the element away closes the stream; a new one gets the whole state first, so nothing is missed.
  const disconnect = () => {
    current?.remove();
    current = null;
  };
  const connect = () => {
    if (!live || paused) return;
    disconnect();
    current = live.cloneNode(false);
    document.body.append(current);
    window.htmx.process(current);
  };

  document.addEventListener("htmx:sse:after:connection", () => {
    opened += 1;
    show("live", "live");
  });
  document.addEventListener("htmx:sse:before:connection", () => {
    if (opened > 0) show("waiting", "reconnecting");
  });
  document.addEventListener("htmx:sse:error", () => show("waiting", "reconnecting"));
  // The first request of a stream is not repeated by htmx when the server refuses it.
  setInterval(() => {
    if (paused || document.hidden || opened > 0 || !live) return;
    show("waiting", "reconnecting");
    connect();
  }, RETRY_MS);

  const toggle = () => {
    if (!pause || !live) return;
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Resume" : "Pause";
    if (paused) {
      disconnect();
      show("paused", "paused");
    } else {
      show("waiting", "reconnecting");
      connect();
    }
  };
  if (pause && live) {
    pause.hidden = false;
    pause.addEventListener("click", toggle);
  }

  const PAGES = { o: "/", t: "/tasks", s: "/submit" };
  let afterG = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    if (target instanceof Element && target.closest("input, textarea, select")) return;
    if (event.key === "g") {
      afterG = event.timeStamp;
      return;
    }
    const page = PAGES[event.key];
    if (page && afterG > 0 && event.timeStamp - afterG < 1500) {
      location.assign(page);
      return;
    }
    afterG = 0;
    if (event.key === "p") toggle();
    if (event.key === "/") {
      const search = document.getElementById("filter-q");
      if (!search) return;
      event.preventDefault();
      search.focus();
    }
  });
})();
