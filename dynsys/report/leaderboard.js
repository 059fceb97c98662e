// Ranks, sorts and draws the leaderboard from the numbers embedded in the page. All texts go in as text, never as HTML.
(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("board-data").textContent);
  const sections = [...document.querySelectorAll("section.protocol")];
  const links = [...document.querySelectorAll("nav a")];
  const VIRIDIS = ["440154", "482374", "404588", "345f8d", "29788e", "20908c", "22a784", "44be70", "79d151", "bdde26", "fde725"];
  const SHAPES = ["M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z", "M-3.6-3.6h7.2v7.2h-7.2Z", "M0-4.8L4.4 3.4H-4.4Z", "M0-5L5 0L0 5L-5 0Z"];
  const number = (v) => (v === null ? NaN : Number(v));
  const color = (i) => "var(--m" + (i % 10) + ")";
  const shape = (i) => SHAPES[(i + Math.floor(i / 10)) % 4];

  function el(tag, attributes, ...children) {
    const svg = ["svg", "path", "line", "rect", "text", "title", "g"].includes(tag);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "style") Object.assign(made.style, value);
      else if (value !== null && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  // Three significant digits, as the tables of the file have them.
  function words(v) {
    if (Number.isNaN(v)) return "–";
    if (!Number.isFinite(v)) return v > 0 ? "∞" : "−∞";
    const size = Math.abs(v);
    if (size && (size < 1e-4 || size >= 1e7)) {
      const [head, power] = v.toExponential(2).split("e");
      return String(Number(head)).replace("-", "−") + "·10^" + String(Number(power)).replace("-", "−");
    }
    return (size >= 999.5 ? v.toFixed(0) : String(Number(v.toPrecision(3)))).replace("-", "−");
  }

  function quantile(values, share) {
    const known = values.filter((v) => !Number.isNaN(v)).sort((a, b) => a - b);
    if (!known.length) return NaN;
    const at = share * (known.length - 1), low = known[Math.floor(at)], high = known[Math.ceil(at)];
    return low === high ? low : low + (at - Math.floor(at)) * (high - low);
  }

  // 0 for the smallest, 1 for the largest value; logarithmic where the middle nine tenths span more than a factor of 50.
  function scale(values) {
    const known = values.filter(Number.isFinite);
    let low = known.length ? Math.min(...known) : 0, high = known.length ? Math.max(...known) : 1;
    const above = known.filter((v) => v > 0);
    const log = low >= 0 && above.length > 1 && quantile(above, 0.95) > 50 * quantile(above, 0.05);
    if (log) low = Math.max(Math.min(...above), high * 1e-9);
    else if (low > 0 && low < 0.5 * high) low = 0;
    if (high <= low) [low, high] = low > 0 ? [0, 2 * low] : [low - 1, low + 1];
    const place = (v) => (log ? Math.log(Math.max(v, low) / low) / Math.log(high / low) : (v - low) / (high - low));
    return { low, high, log, place: (v) => Math.min(1, Math.max(0, place(v))) };
  }

  function ticks(s) {
    const made = [];
    if (s.log) {
      const first = Math.ceil(Math.log10(s.low) - 1e-9), last = Math.floor(Math.log10(s.high) + 1e-9);
      for (let k = first; k <= last; k += Math.max(1, Math.ceil((last - first) / 6))) made.push(10 ** k);
      if (made.length > 1) return made;
      return [s.low, Math.sqrt(s.low * s.high), s.high].map((v) => Number(v.toPrecision(2)));
    }
    const raw = (s.high - s.low) / 5, unit = 10 ** Math.floor(Math.log10(raw));
    const step = unit * [1, 2, 5, 10].find((k) => k * unit >= raw);
    for (let k = Math.ceil(s.low / step); k * step <= s.high * (1 + 1e-9); k++) made.push(Number((k * step).toPrecision(6)));
    return made;
  }

  function shade(share) {
    const at = share * (VIRIDIS.length - 1), k = Math.min(Math.floor(at), VIRIDIS.length - 2);
    const part = (text) => [0, 2, 4].map((i) => parseInt(text.slice(i, i + 2), 16));
    const low = part(VIRIDIS[k]), high = part(VIRIDIS[k + 1]);
    return low.map((v, i) => Math.round(v + (at - k) * (high[i] - v)));
  }

  function ranks(column) { // 1 the best, equal values share the mean rank, NaN where there is no row
    return column.map((v) => Number.isNaN(v) ? NaN : 1 + column.filter((w) => w < v).length + (column.filter((w) => w === v).length - 1) / 2);
  }

  function Board(place) {
    const board = data.protocols[place], section = sections[place];
    const find = (selector) => section.querySelector(selector);
    const names = board.systems.map((k) => data.systems[k][0]);
    const trouble = new Map(board.trouble.map(([i, j, failed, diverged, why]) => [i + "," + j, { failed, diverged, why }]));
    const scores = board.scores.map((s) => Object.assign({}, s, { values: s.values.map((line) => line.map(number)) }));
    const seconds = scores.find((s) => s.name === "seconds").values;
    const models = board.models.map((_, i) => i);
    const state = { score: 0, text: "", kind: "all", order: "hard", key: "median", down: false, hidden: new Set(models.slice(6)), model: 0 };

    const kept = () => names.map((_, j) => j).filter(function (j) {
      const polynomial = data.systems[board.systems[j]][2];
      const parts = state.text.toLowerCase().split(",").map((part) => part.trim()).filter(Boolean);
      return (!parts.length || parts.some((part) => names[j].toLowerCase().includes(part)))
        && (state.kind === "all" || polynomial === (state.kind === "yes"));
    });

    function ranking(systems) {
      const { values, lower } = scores[state.score], sign = lower ? 1 : -1;
      const places = systems.map((j) => ranks(models.map((i) => sign * values[i][j])));
      return models.map(function (i) {
        const here = systems.map((j) => values[i][j]);
        const known = places.map((column) => column[i]).filter(Number.isFinite);
        const rows = systems.reduce((sum, j) => sum + board.counts[i][j], 0);
        const bad = systems.reduce((sum, j) => { const t = trouble.get(i + "," + j); return sum + (t ? t.failed + t.diverged : 0); }, 0);
        return {
          i, model: board.models[i], median: quantile(here, 0.5), lower: quantile(here, 0.25), upper: quantile(here, 0.75),
          rank: known.length ? known.reduce((a, b) => a + b) / known.length : NaN, systems: known.length,
          failed: rows ? bad / rows : NaN, seconds: quantile(systems.map((j) => seconds[i][j]), 0.5)
        };
      });
    }

    const COLUMNS = [["model", "model"], ["median", "median"], ["lower", "lower quartile"], ["upper", "upper quartile"], ["", "spread"],
      ["rank", "mean rank"], ["systems", "systems"], ["failed", "failed or diverged"], ["seconds", "seconds"]];

    function drawRanking(systems) {
      const lines = ranking(systems), sign = state.down ? -1 : 1;
      const s = scale(lines.flatMap((line) => [line.lower, line.median, line.upper]));
      const compare = (a, b) => (typeof a === "string" ? (a < b ? -1 : a > b ? 1 : 0) : a === b ? 0 : a - b);
      lines.sort(function (one, two) {
        const a = one[state.key], b = two[state.key];
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        return sign * compare(a, b) || compare(one.rank, two.rank) || one.i - two.i;
      });
      const head = el("tr", {}, ...COLUMNS.map(function ([key, text]) {
        const sorted = key === state.key ? (state.down ? "descending" : "ascending") : null;
        const cell = el("th", { scope: "col", class: key === "model" || !key ? null : "number", "aria-sort": key ? sorted : null });
        if (!key) { cell.append(text); return cell; }
        const button = el("button", { type: "button", "data-key": key }, text);
        button.addEventListener("click", function () {
          const best = key !== "model" && ["median", "lower", "upper"].includes(key) && !scores[state.score].lower;
          state.down = key === state.key ? !state.down : best || key === "systems";
          state.key = key;
          drawRanking(kept());
          find(`.rank button[data-key="${key}"]`).focus();
        });
        cell.append(button);
        return cell;
      }));
      const rows = lines.map(function (line) {
        const cell = (text) => el("td", { class: "number" }, text);
        const x = (v) => (3 + 134 * (Number.isFinite(v) ? s.place(v) : v > 0 ? 1 : 0)).toFixed(1);
        const bar = el("svg", { class: "bar", width: 140, height: 14, "aria-hidden": "true" }, el("line", { class: "axis", x1: 3, x2: 137, y1: 7, y2: 7 }));
        if (!Number.isNaN(line.median)) {
          bar.append(el("rect", { class: "box", x: x(line.lower), y: 2, height: 10, width: Math.max(1, x(line.upper) - x(line.lower)) }));
          bar.append(el("line", { class: "mid", x1: x(line.median), x2: x(line.median), y1: 1, y2: 13 }));
        }
        return el("tr", {}, el("th", { scope: "row" }, line.model), cell(words(line.median)), cell(words(line.lower)), cell(words(line.upper)),
          el("td", {}, bar), cell(words(line.rank)), cell(String(line.systems)),
          cell(Number.isNaN(line.failed) ? "–" : Math.round(100 * line.failed) + " %"), cell(words(line.seconds)));
      });
      find(".rank").replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
    }

    function ordered(systems) {
      const { values, lower } = scores[state.score];
      const hard = (j) => quantile(models.map((i) => values[i][j]), 0.5) * (lower ? 1 : -1);
      const chaos = (j) => number(data.systems[board.systems[j]][1]);
      if (state.order === "name") return systems;
      const key = new Map(systems.map((j) => [j, state.order === "hard" ? hard(j) : chaos(j)]));
      return [...systems].sort(function (a, b) {
        const one = key.get(a), two = key.get(b);
        if (Number.isNaN(one) || Number.isNaN(two)) return Number.isNaN(one) - Number.isNaN(two);
        return one === two ? a - b : two - one;
      });
    }

    function state_of(i, j) {
      const t = trouble.get(i + "," + j), rows = board.counts[i][j];
      if (!rows) return { kind: "none", text: "no row" };
      if (!t) return { kind: "", text: "" };
      const many = (n, what) => (n ? `${n} of ${rows} ${what}` : "");
      const why = t.why >= 0 ? data.reasons[t.why] : "";
      return { kind: t.failed === rows ? "failed" : "some", text: [many(t.failed, "failed"), many(t.diverged, "diverged"), why].filter(Boolean).join("; ") };
    }

    function drawHeat(systems) {
      const { name, values, lower } = scores[state.score];
      const s = scale(models.flatMap((i) => systems.map((j) => values[i][j])));
      const good = (v) => { const at = Number.isFinite(v) ? s.place(v) : v > 0 ? 1 : 0; return lower ? 1 - at : at; };
      const head = el("tr", {}, el("th", { scope: "col" }, "system"),
        ...board.models.map((model) => el("th", { scope: "col", title: model }, el("span", {}, model))));
      const rows = ordered(systems).map((j) => el("tr", {}, el("th", { scope: "row" }, names[j]), ...models.map(function (i) {
        const how = state_of(i, j), v = values[i][j];
        const text = how.kind === "failed" ? "failed" : words(v);
        const title = `${board.models[i]} on ${names[j]}: ${text}${how.text ? " (" + how.text + ")" : ""}`;
        const cell = el("td", { class: how.kind || null, title }, text);
        if (!Number.isNaN(v) && (how.kind === "" || how.kind === "some")) {
          const rgb = shade(good(v));
          cell.style.background = `rgb(${rgb})`;
          cell.style.color = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 118 ? "#000" : "#fff";
        }
        return cell;
      })));
      find(".heat").replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
      const ramp = el("span", { class: "ramp", style: { background: `linear-gradient(90deg, ${VIRIDIS.map((c) => "#" + c).join(", ")})` } });
      const [worst, best] = lower ? [s.high, s.low] : [s.low, s.high];
      const part = (...children) => el("span", {}, ...children);
      find(".legend-heat").replaceChildren(part(`${name}: ${words(worst)}`, ramp, `${words(best)}${s.log ? ", logarithmic" : ""} (yellow is good)`),
        part(el("span", { class: "swatch failed" }), "failed with every seed"), part(el("span", { class: "swatch some" }), "some failed or diverged"),
        part("–  no row"));
    }

    function drawScatter(systems) {
      const { name, values } = scores[state.score], frame = find(".scatter");
      const at = new Map(systems.map((j) => [j, number(data.systems[board.systems[j]][1])]));
      const known = systems.filter((j) => Number.isFinite(at.get(j)) && at.get(j) > 0);
      const shown = models.filter((i) => !state.hidden.has(i));
      const legend = el("div", { class: "legend" }, ...models.map(function (i) {
        const mark = el("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" }, el("path", { d: shape(i), style: { fill: color(i) } }));
        const button = el("button", { type: "button", "aria-pressed": String(!state.hidden.has(i)), title: board.models[i], "data-model": i }, mark, board.models[i]);
        button.addEventListener("click", function () {
          if (!state.hidden.delete(i)) state.hidden.add(i);
          drawScatter(kept());
          find(`.legend button[data-model="${i}"]`).focus();
        });
        const focus = (on) => () => {
          frame.classList.toggle("focus", on && !state.hidden.has(i));
          for (const path of frame.querySelectorAll("path[data-model]")) path.classList.toggle("on", on && path.dataset.model === String(i));
        };
        button.addEventListener("mouseenter", focus(true));
        button.addEventListener("mouseleave", focus(false));
        return button;
      }));
      const missing = systems.length - known.length;
      const note = el("figcaption", {}, `One mark a model and system; click a name to show or hide its marks. The exponent times the dominant period says how many times errors grow e-fold in one period. ` +
        (missing ? `${missing} of ${systems.length} systems are left out: no positive exponent or no period is known of them.` : "Every system is drawn."));
      frame.classList.remove("focus");
      if (!known.length) { frame.replaceChildren(note); return; }
      const x = scale(known.map((j) => at.get(j))), y = scale(shown.flatMap((i) => known.map((j) => values[i][j])));
      const W = 1060, H = 380, left = 62, bottom = 44, top = 12, right = 12;
      const px = (v) => left + (W - left - right) * (0.015 + 0.97 * x.place(v));
      const py = (v) => H - bottom - (H - bottom - top) * (0.02 + 0.96 * (Number.isFinite(v) ? y.place(v) : v > 0 ? 1 : 0));
      const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${name} against the Lyapunov exponent times the period, of ${known.length} systems` });
      for (const v of ticks(x)) svg.append(el("line", { class: "grid", x1: px(v), x2: px(v), y1: top, y2: H - bottom }), el("text", { x: px(v), y: H - bottom + 17, "text-anchor": "middle" }, words(v)));
      for (const v of ticks(y)) svg.append(el("line", { class: "grid", x1: left, x2: W - right, y1: py(v), y2: py(v) }), el("text", { x: left - 8, y: py(v) + 4, "text-anchor": "end" }, words(v)));
      svg.append(el("text", { x: (left + W) / 2, y: H - 6, "text-anchor": "middle" }, "maximal Lyapunov exponent × dominant period"));
      svg.append(el("text", { transform: `translate(14 ${(H - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, name));
      for (const i of shown) {
        for (const j of known) {
          const v = values[i][j];
          if (Number.isNaN(v)) continue;
          const how = state_of(i, j);
          svg.append(el("path", { d: shape(i), "data-model": i, transform: `translate(${px(at.get(j)).toFixed(1)} ${py(v).toFixed(1)})`, style: { fill: color(i) } },
            el("title", {}, `${board.models[i]} on ${names[j]}: ${how.kind === "failed" ? "failed" : words(v)}; exponent × period ${words(at.get(j))}`)));
        }
      }
      frame.replaceChildren(legend, svg, note);
    }

    const lazy = "IntersectionObserver" in window ? new IntersectionObserver(function (entries) {
      for (const entry of entries) if (entry.isIntersecting) { lazy.unobserve(entry.target); entry.target.paint(); }
    }, { rootMargin: "200px" }) : null;

    function drawThumbs(systems) {
      const { name, values } = scores[state.score], { truth, made, line, axes } = board.pictures, frame = find(".thumbs"), i = state.model;
      const having = ordered(systems).filter((j) => truth[j] >= 0);
      if (lazy) lazy.disconnect();
      const cards = having.map(function (j) {
        const how = state_of(i, j), text = how.kind === "failed" || how.kind === "none" ? how.text.split(";")[0] : `${name} ${words(values[i][j])}`;
        const canvas = el("canvas", { role: "img", "aria-label": `${names[j]}: the data at the left, ${board.models[i]} at the right; ${axes[j]}; ${text}` });
        canvas.paint = () => paint(canvas, [truth[j], made[i][j]], line[j]);
        if (lazy) lazy.observe(canvas); else canvas.paint();
        return el("figure", { class: "thumb" }, canvas, el("figcaption", {}, el("b", {}, names[j]), el("span", {}, text)));
      });
      const few = having.length < systems.length ? ` ${having.length} of ${systems.length} systems have a picture here` + (data.share < 1 ? ", spread from easy to hard, so that this file stays small." : ".") : "";
      const note = el("p", { class: "meta" }, el("span", { class: "key true" }), "data ", el("span", { class: "key made" }),
        "free run of the model, in the plane of the data's two principal components (one variable: over time). What leaves the frame is not drawn." + few);
      frame.replaceChildren(note, ...cards);
    }

    function paint(canvas, places, joined) {
      const style = getComputedStyle(document.documentElement), ratio = window.devicePixelRatio || 1;
      const w = canvas.clientWidth || 205, h = canvas.clientHeight || 100, pen = canvas.getContext("2d");
      canvas.width = w * ratio;
      canvas.height = h * ratio;
      pen.scale(ratio, ratio);
      places.forEach(function (place, half) {
        const left = half * w / 2;
        pen.fillStyle = pen.strokeStyle = style.getPropertyValue(half ? "--made" : "--true");
        if (place < 0) {
          pen.fillStyle = style.getPropertyValue("--soft");
          pen.textAlign = "center";
          pen.fillText("no picture", left + w / 4, h / 2);
          return;
        }
        const bytes = atob(data.pictures[place]);
        pen.lineWidth = 1.1;
        pen.lineJoin = "round";
        pen.beginPath();
        let on = false;
        for (let k = 0; k < bytes.length; k += 2) {
          const a = bytes.charCodeAt(k), b = bytes.charCodeAt(k + 1);
          if (a === 255) { on = false; continue; }
          const x = left + 3 + (w / 2 - 6) * (a + 0.5) / 255, y = h - 3 - (h - 6) * (b + 0.5) / 255;
          if (!joined) pen.fillRect(x - 0.7, y - 0.7, 1.5, 1.5);
          else if (on) pen.lineTo(x, y);
          else pen.moveTo(x, y);
          on = true;
        }
        if (joined) pen.stroke();
      });
      canvas.classList.add("drawn");
    }

    function select(text, options, change) {
      const made = el("select", {}, ...options.map(([value, shown]) => el("option", { value }, shown)));
      made.addEventListener("change", () => { change(made.value); draw(); });
      return el("label", {}, text, made);
    }

    const count = el("output", {});
    const filter = el("input", { type: "search", placeholder: "Lorenz, Sprott", "aria-label": "Show only systems whose name holds this" });
    filter.addEventListener("input", () => { state.text = filter.value; draw(); });
    find(".controls").replaceChildren(
      select("score", scores.map((s, k) => [k, `${s.name} (${s.lower ? "lower" : "higher"} is better)`]), function (value) {
        state.score = Number(value);
        state.key = "median";
        state.down = !scores[state.score].lower;
      }),
      el("label", {}, "systems", filter),
      select("right-hand side", [["all", "any"], ["yes", "polynomial"], ["no", "not polynomial"]], (value) => { state.kind = value; }), count);
    find(".order").replaceChildren(select("order", [["hard", "hardest first"], ["name", "by name"], ["chaos", "most chaotic first"]], (value) => { state.order = value; }));
    find(".whose").replaceChildren(select("model", board.models.map((model, i) => [i, model]), (value) => { state.model = Number(value); }));
    state.down = !scores[0].lower;

    function draw() {
      const systems = kept();
      for (const part of section.querySelectorAll("span.score")) part.textContent = scores[state.score].name;
      find(".what").textContent = scores[state.score].what || scores[state.score].name;
      find(".direction").textContent = scores[state.score].lower ? "lower" : "higher";
      count.textContent = systems.length === names.length ? `${names.length} systems` : `${systems.length} of ${names.length} systems`;
      drawRanking(systems);
      drawHeat(systems);
      drawScatter(systems);
      drawThumbs(systems);
    }
    return draw;
  }

  const boards = new Map();
  function show() {
    let wanted = location.hash.slice(1);
    try { wanted = decodeURIComponent(wanted); } catch (error) { wanted = ""; }
    const place = Math.max(0, sections.findIndex((section) => section.id === wanted));
    sections.forEach((section, k) => section.classList.toggle("shown", k === place));
    links.forEach((link, k) => (k === place ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
    if (!boards.has(place)) boards.set(place, Board(place));
    boards.get(place)();
  }
  show();
  window.addEventListener("hashchange", show);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
})();
