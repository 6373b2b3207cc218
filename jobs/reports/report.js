"use strict";
// Draws one page of cards from the data in this file. What is shown is said by the address behind
// '#', so that a view can be kept, sent and gone back to. Texts are set as text, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = data.rows.map((row, number) => {
    const image = { number };
    data.columns.forEach((column, index) => { image[column] = row[index]; });
    image.failures = image.attempts + image.failed;
    return image;
  });
  const form = document.getElementById("controls");
  const cards = document.getElementById("cards");
  const pager = document.getElementById("pager");
  const found = document.getElementById("found");
  const zoom = document.getElementById("zoom");
  const turn = document.getElementById("turn");
  const order = Object.keys(data.states);
  const START = { q: "", state: "", refined: "", seconds: "", failures: "", sort: "care", per: "12", page: "1" };

  // ------------------------------------------------------------------------ small helpers

  const number = (value) => Number(value).toLocaleString("en-US");
  const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
  function percent(share) {
    const value = share * 100;
    if (value > 0 && value < 1) return `${Math.max(value, 0.01).toFixed(value < 0.1 ? 2 : 1)} %`;
    if (value >= 99.5 && value < 100) return `${Math.min(value, 99.9).toFixed(1)} %`;
    return `${value.toFixed(0)} %`;
  }
  function duration(seconds) {
    if (seconds < 10) return `${seconds.toFixed(1)} s`;
    const whole = Math.round(seconds);
    const two = (n) => String(n).padStart(2, "0");
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
    return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  }
  function element(tag, kind, ...children) {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  }
  function swatch(kind, colour) {
    const made = element("i", kind);
    if (colour) made.style.background = `rgb(${colour.join(" ")})`;
    return made;
  }

  // what stands between backticks is code
  function coded(text) {
    const pieces = text.split("`");
    return pieces.length % 2 ? pieces.map((piece, index) => (index % 2 ? element("code", "", piece) : piece)) : [text];
  }

  // ------------------------------------------------------------------- which images, which page

  function wanted() {
    const given = new URLSearchParams(location.hash.slice(1));
    const asked = { ...START };
    for (const key of Object.keys(START)) if (given.has(key)) asked[key] = given.get(key);
    return asked;
  }
  // "10-50", "10-" and "-50" are ranges; "10" means from 10 on
  function range(text) {
    const [low, high] = text.includes("-") ? text.split("-") : [text, ""];
    const bound = (end, none) => (end.trim() === "" || Number.isNaN(Number(end)) ? none : Number(end));
    return [bound(low, -Infinity), bound(high, Infinity)];
  }
  function within(value, text) {
    if (text === "") return true;
    const [low, high] = range(text);
    return value !== null && value >= low && value <= high;
  }
  function chosen(asked) {
    const part = asked.q.toLowerCase();
    return rows.filter((image) =>
      (!part || image.name.toLowerCase().includes(part)) &&
      (!asked.state || image.state === asked.state) &&
      within(image.refined === null ? null : image.refined * 100, asked.refined) &&
      within(image.seconds, asked.seconds) &&
      within(image.failures, asked.failures));
  }
  const names = new Intl.Collator("en", { numeric: true });
  const KEYS = {
    care: (a, b) => a.care - b.care,
    run: (a, b) => a.number - b.number,
    name: (a, b) => names.compare(a.name, b.name),
    state: (a, b) => order.indexOf(a.state) - order.indexOf(b.state),
    refined: (a, b) => (a.refined ?? -1) - (b.refined ?? -1),
    seconds: (a, b) => a.seconds - b.seconds,
    failures: (a, b) => a.failures - b.failures,
  };
  function sorted(images, sort) {
    const down = sort.startsWith("-");
    const compare = KEYS[down ? sort.slice(1) : sort] || KEYS.care;
    return images.sort((a, b) => (down ? compare(b, a) : compare(a, b)) || a.number - b.number);
  }

  // ------------------------------------------------------------------------------- one card

  function card(image) {
    const made = element("article", "card");
    made.dataset.image = image.number;
    const kind = order.includes(image.state) ? image.state : "waiting";
    const state = element("span", "state", swatch(kind), data.states[image.state] || image.state);
    made.append(element("header", "", element("h3", "", image.name), state));
    const shown = document.getElementById(`image-${image.number}`);
    const seen = shown ? JSON.parse(shown.textContent) : { pictures: [], classes: [], problem: "" };
    if (seen.pictures.length === 1) made.append(pictures(image, seen.pictures));
    made.append(element("p", "facts", facts(image)));
    if (image.reason) made.append(element("p", "reason", ...coded(image.reason)));
    if (image.remedy >= 0) made.append(element("p", "remedy", ...coded(data.remedies[image.remedy])));
    if (seen.pictures.length > 1) made.append(pictures(image, seen.pictures));
    if (seen.problem) made.append(element("p", "facts", `Pictures: ${seen.problem}`));
    if (image.passes.length) made.append(element("ul", "passes", ...image.passes.map((line) => pass(image, line))));
    if (seen.classes.length) made.append(element("ul", "classes", ...seen.classes.map(share)));
    if (image.notes.length) made.append(notes(image.notes));
    return made;
  }
  function facts(image) {
    const told = [];
    if (image.state === "running") told.push(`${image.stage || "prepare"}, ${percent(image.done)} of what is planned`);
    if (image.state === "waiting") told.push("not begun");
    if (image.refined !== null) told.push(`${percent(image.refined)} refined`);
    if (image.seconds) told.push(`${duration(image.seconds)} busy`);
    if (image.attempts) told.push(`${plural(image.attempts, "attempt")} failed`);
    if (image.failed) told.push(`${plural(image.failed, "tile")} unreadable`);
    if (image.degraded) told.push(`${plural(image.degraded, "tile")} answered in part`);
    return told.join(" \u00b7 ");
  }
  function pass(image, [index, answered, selected, of, seconds]) {
    const all = of || selected || answered || 1;
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    bar.setAttribute("aria-hidden", "true");
    for (const [kind, part] of [["ground", 1], [`pass-${index}`, answered / all]]) {
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      rect.setAttribute("class", kind);
      rect.setAttribute("width", `${Math.min(100, 100 * part)}%`);
      rect.setAttribute("height", "6");
      bar.append(rect);
    }
    const chosen = of && selected !== null && image.state === "running" ? `, ${number(selected)} chosen` : "";
    const total = all === answered ? plural(answered, "tile") : `${number(answered)} of ${plural(all, "tile")}${chosen}`;
    return element("li", "pass", element("span", "", swatch(`pass-${index}`), data.passes[index]), bar,
      element("span", "", `${total}, ${duration(seconds)}`));
  }
  function share([name, colour, part]) {
    return element("li", "class", swatch("", colour), `${name} ${percent(part)}`);
  }
  function notes(lines) {
    return element("details", "", element("summary", "", "Notes"),
      ...lines.map((line) => element("p", "", line)));
  }

  // ------------------------------------------------------------------------------- pictures

  function figure(image, [title, width, height, source], named) {
    const shown = element("img");
    shown.alt = `${image.name}: ${title}`;
    shown.loading = "lazy";
    shown.decoding = "async";
    shown.width = width;
    shown.height = height;
    shown.src = source;
    return element("figure", "", shown, named ? element("figcaption", "", title) : null);
  }
  function pictures(image, all) {
    if (all.length === 1) return element("div", "pictures one", figure(image, all[0], false));
    const landscape = all[0][1] > 1.25 * all[0][2] ? " landscape" : "";
    const button = element("button", `pictures${landscape}`, ...all.map((one) => figure(image, one, true)));
    button.type = "button";
    button.setAttribute("aria-label", `Enlarge the pictures of ${image.name}`);
    button.addEventListener("click", () => enlarge(image, all));
    return button;
  }
  function enlarge(image, all) {
    zoom.lastElementChild.replaceChildren(element("h3", "", image.name),
      element("div", "zoomed", ...all.map((one) => figure(image, one, true))));
    zoom.showModal();
  }

  // ------------------------------------------------------------------------------- the page

  function draw() {
    const asked = wanted();
    const images = sorted(chosen(asked), asked.sort);
    const per = Math.min(200, Math.max(1, Math.floor(Number(asked.per)) || 12));
    const pages = Math.max(1, Math.ceil(images.length / per));
    const page = Math.min(pages, Math.max(1, Math.floor(Number(asked.page)) || 1));
    const first = (page - 1) * per;
    const shown = images.slice(first, first + per);
    cards.replaceChildren(...shown.map(card));
    const whole = images.length === rows.length ? plural(rows.length, "image") : `${number(images.length)} of ${plural(rows.length, "image")}`;
    found.textContent = !images.length ? `None of ${plural(rows.length, "image")} fits; clear the filters to see all.`
      : pages > 1 ? `${whole}; ${number(first + 1)} to ${number(first + shown.length)} are shown.` : `${whole}.`;
    drawPager(page, pages);
    fill(asked);
  }
  function drawPager(page, pages) {
    pager.hidden = pages < 2;
    const step = (text, to, label) => {
      const made = element("button", "", text);
      made.type = "button";
      made.disabled = to < 1 || to > pages || to === page;
      made.setAttribute("aria-label", label);
      made.addEventListener("click", () => {
        go({ page: String(to) });
        document.getElementById("images").scrollIntoView();
        document.getElementById("images").focus({ preventScroll: true });
      });
      return made;
    };
    pager.replaceChildren(step("\u00ab", 1, "First page"), step("\u2039 Previous", page - 1, "Previous page"),
      element("span", "", `${number(page)} of ${number(pages)}`),
      step("Next \u203a", page + 1, "Next page"), step("\u00bb", pages, "Last page"));
  }
  // Focus stays where a person types: values are only set where they differ.
  function fill(asked) {
    const down = asked.sort.startsWith("-");
    const [from, to] = asked.refined.includes("-") ? asked.refined.split("-") : [asked.refined, ""];
    const values = { q: asked.q, state: asked.state, "refined-from": from, "refined-to": to,
      seconds: asked.seconds.replace(/-$/, ""), failures: asked.failures.replace(/-$/, ""),
      sort: down ? asked.sort.slice(1) : asked.sort, per: asked.per };
    for (const [name, value] of Object.entries(values)) {
      const field = form.elements[name];
      if (field !== document.activeElement && field.value !== value) field.value = value;
    }
    turn.setAttribute("aria-pressed", String(down));
    turn.textContent = down ? "\u2193" : "\u2191";
  }

  // ------------------------------------------------------------------------ what a person does

  function go(changes) {
    const asked = { ...wanted(), ...changes };
    const kept = new URLSearchParams();
    for (const key of Object.keys(START)) if (asked[key] !== START[key]) kept.set(key, asked[key]);
    history.replaceState(null, "", `#${kept}`);
    draw();
  }
  function read() {
    const value = (name) => form.elements[name].value.trim();
    const [from, to] = [value("refined-from"), value("refined-to")];
    const down = turn.getAttribute("aria-pressed") === "true";
    go({ q: value("q"), state: value("state"), refined: to ? `${from}-${to}` : from,
      seconds: value("seconds"), failures: value("failures"),
      sort: (down ? "-" : "") + value("sort"), per: value("per"), page: "1" });
  }
  const all = element("option", "", "all");
  all.value = "";
  form.elements.state.append(all, ...order.map((state) => {
    const made = element("option", "", data.states[state]);
    made.value = state;
    return made;
  }));
  let waiting = 0;
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(read, 120); });
  form.addEventListener("change", () => {
    // numbers and shares are asked for from the largest down, names from the first on
    clearTimeout(waiting);
    read();
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); read(); });
  form.addEventListener("reset", () => setTimeout(() => go(START), 0));
  turn.addEventListener("click", () => {
    turn.setAttribute("aria-pressed", String(turn.getAttribute("aria-pressed") !== "true"));
    read();
  });
  zoom.firstElementChild.addEventListener("click", () => zoom.close());
  zoom.addEventListener("click", (event) => { if (event.target === zoom) zoom.close(); });
  addEventListener("hashchange", draw);
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key !== "/" || typing || zoom.open || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    form.elements.q.focus();
  });
  form.hidden = rows.length < 2;
  draw();
})();
