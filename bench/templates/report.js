
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, text, class_) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (class_) node.className = class_;
    return node;
  };

  // --- what a cell or a point tells, under the pointer or the keyboard's focus
  const tip = document.getElementById("tip");
  let telling = null;
  const hideTip = () => {
    telling = null;
    tip.hidden = true;
  };
  const showTip = (target) => {
    telling = target;
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const at = target.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(4, at.left), window.innerWidth - own.width - 4);
    const below = at.bottom + 6;
    const top = below + own.height > window.innerHeight ? Math.max(4, at.top - own.height - 6) : below;
    tip.style.left = `${left}px`;
    tip.style.top = `${top}px`;
  };
  const told = (event) => event.target instanceof Element && event.target.closest("[data-tip]");
  for (const kind of ["mouseover", "focusin"]) {
    document.addEventListener(kind, (event) => {
      const target = told(event);
      if (target && target.dataset.tip) showTip(target);
      else hideTip();
    });
  }
  document.addEventListener("focusout", hideTip);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  window.addEventListener("scroll", () => { if (telling) showTip(telling); }, true);

  // --- leaderboards
  for (const section of all("section.table")) {
    const board = section.querySelector(".board");
    const body = section.querySelector("tbody");
    const heads = all("thead th", section);
    section.querySelector(".controls").hidden = false;
    const rows = all("tr", body);
    rows.forEach((row, place) => { row.dataset.place = place; });
    const markLine = () => {
      const shown = all("tr.reference", body).filter((row) => !row.hidden);
      all("tr", body).forEach((row) => row.classList.toggle("last-reference", row === shown[shown.length - 1]));
    };
    markLine();

    const figure = (row, at) => {
      const text = row.children[at].dataset.sort;
      return text === undefined || text === "" ? NaN : Number(text);
    };
    const runs = (row) => Number(row.children[1].textContent.split("/")[0]);
    const sort = (head, at) => {
      const first = head.dataset.best === "asc" || at === 0 ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const now = head.getAttribute("aria-sort");
      const next = now === first ? other : now === other ? null : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      const sign = next === "descending" ? -1 : 1;
      const order = (a, b) => {
        const place = Number(a.dataset.place) - Number(b.dataset.place);
        const rank = Number(b.classList.contains("reference")) - Number(a.classList.contains("reference"));
        if (rank || !next || a.classList.contains("reference")) return rank || place;
        if (at === 0) return sign * a.dataset.method.localeCompare(b.dataset.method) || place;
        const [x, y] = at === 1 ? [runs(a), runs(b)] : [figure(a, at), figure(b, at)];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y)) || place;
        return sign * (x - y) || place;
      };
      body.append(...rows.slice().sort(order));
      markLine();
    };
    heads.forEach((head, at) => {
      const button = make("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(head, at));
    });

    const findMethod = section.querySelector(".find-method");
    findMethod.addEventListener("input", () => {
      const text = findMethod.value.trim().toLowerCase();
      rows.forEach((row) => { row.hidden = !row.dataset.method.toLowerCase().includes(text); });
      markLine();
    });
    const findMetric = section.querySelector(".find-metric");
    findMetric.addEventListener("input", () => {
      const words = findMetric.value.trim().toLowerCase().replaceAll("_", " ");
      heads.forEach((head, at) => {
        if (!head.dataset.metric) return;
        const text = `${head.dataset.metric} ${head.textContent}`.toLowerCase().replaceAll("_", " ");
        const gone = !text.includes(words);
        head.hidden = gone;
        rows.forEach((row) => { row.children[at].hidden = gone; });
      });
    });
    for (const [name, class_] of [[".show-all", "with-all"], [".show-deviation", "with-deviation"]]) {
      const box = section.querySelector(name);
      if (box) box.addEventListener("change", () => board.classList.toggle(class_, box.checked));
    }

    // Arrow keys walk over the cells, so that the keyboard reaches what hovering tells.
    const grid = () => all("tr", section.querySelector("table")).filter((row) => !row.hidden);
    const seen = (row) => [...row.children].filter((cell) => cell.offsetParent !== null);
    all("tbody th, tbody td", section).forEach((cell) => { cell.tabIndex = -1; });
    if (rows.length) rows[0].children[0].tabIndex = 0;
    section.querySelector("table").addEventListener("keydown", (event) => {
      const cell = event.target.closest("th, td");
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!cell || !move) return;
      const lines = grid();
      const down = lines.indexOf(cell.parentElement) + move[0];
      const across = seen(cell.parentElement).indexOf(cell) + move[1];
      const line = lines[down];
      const next = line && seen(line)[across];
      if (!next) return;
      event.preventDefault();
      (next.querySelector("button") || next).focus();
    });
  }

  // --- samples
  const blocks = all("script.samples").map((node) => ({ node, read: null }));
  const read = (block) => block.read || (block.read = JSON.parse(block.node.textContent));
  const browser = document.getElementById("browser");
  if (browser && blocks.length) {
    const $ = (id) => document.getElementById(id);
    browser.hidden = false;
    let block = null;
    let found = [];
    let at = 0;
    const fill = (select, options, keep) => {
      const before = keep ? select.value : null;
      select.replaceChildren(...options.map(([value, text]) => {
        const option = make("option", text);
        option.value = value;
        return option;
      }));
      if (before !== null && options.some(([value]) => value === before)) select.value = before;
    };
    const titles = new Map(blocks.map((each) => [read(each).table, read(each).title]));
    const value = (row, metric, method) => (row.values[method] ? row.values[method][metric] : null);

    const chooseTable = () => {
      const mine = blocks.filter((each) => read(each).table === $("pick-table").value);
      fill($("pick-evaluator"), mine.map((each) => [read(each).evaluator, read(each).evaluator]), true);
      chooseEvaluator();
    };
    const chooseEvaluator = () => {
      block = read(blocks.find((each) =>
        read(each).table === $("pick-table").value && read(each).evaluator === $("pick-evaluator").value));
      const sets = Object.entries(block.sets);
      fill($("pick-set"), [["", "all sets"], ...sets.map(([name, n]) => [`=${name}`, `${name} (${n.shown} of ${n.total})`])], true);
      fill($("pick-metric"), [["", "any"], ...block.metrics.map((name, i) => [String(i), name])], false);
      fill($("pick-method"), [["", "any method"], ...block.methods.map((name, i) => [String(i), name])], true);
      const cut = sets.filter(([, n]) => n.shown < n.total).map(([name, n]) => `${name} ${n.shown} of ${n.total}`);
      $("shown").textContent = cut.length ? `Not all are here: ${cut.join(", ")}.` : "These are all.";
      filter();
    };
    const filter = () => {
      const set = $("pick-set").value;
      const text = $("find-text").value.toLowerCase();
      const metric = $("pick-metric").value;
      const method = $("pick-method").value;
      const low = $("from").value === "" ? -Infinity : Number($("from").value);
      const high = $("to").value === "" ? Infinity : Number($("to").value);
      const inside = (v) => v !== null && v !== undefined && v >= low && v <= high;
      found = block.rows.filter((row) => {
        if (set && `=${row.set}` !== set) return false;
        if (text) {
          const texts = [row.id, row.question, row.reference, ...row.answers];
          if (!texts.some((each) => each !== null && each.toLowerCase().includes(text))) return false;
        }
        if (metric === "") return true;
        const methods = method === "" ? block.methods.map((_, i) => i) : [Number(method)];
        return methods.some((i) => inside(value(row, Number(metric), i)));
      });
      at = 0;
      show();
    };
    const show = () => {
      const none = found.length === 0;
      $("position").textContent = none ? "nothing fits" : `${at + 1} of ${found.length}`;
      $("previous").disabled = none || at === 0;
      $("next").disabled = none || at === found.length - 1;
      const place = $("sample");
      place.replaceChildren();
      if (none) return;
      const row = found[at];
      const list = make("dl");
      for (const [name, text] of [[`question · ${row.set} · ${row.id}`, row.question], ["reference", row.reference]]) {
        if (text) list.append(make("dt", name), make("dd", text));
      }
      const answers = make("div", undefined, "answers");
      block.methods.forEach((method, i) => {
        const card = make("div", undefined, "answer");
        const seed = block.seeds[method];
        card.append(make("h4", method));
        if (seed !== undefined) card.title = `seed ${seed}`;
        if (row.values[i] === null) card.append(make("p", "not asked", "none"));
        else if (row.answers[i] === null) card.append(make("p", "no text: only likelihoods were taken", "none"));
        else card.append(make("p", row.answers[i]));
        const values = make("div", undefined, "values");
        (row.values[i] || []).forEach((number, m) => {
          if (number === null) return;
          const item = make("span", `${block.metrics[m]} `);
          item.append(make("b", String(number)));
          values.append(item);
        });
        card.append(values);
        answers.append(card);
      });
      place.append(list, answers);
    };
    const go = (by) => {
      at = Math.min(Math.max(at + by, 0), found.length - 1);
      show();
    };
    fill($("pick-table"), [...titles], false);
    $("pick-table").addEventListener("change", chooseTable);
    $("pick-evaluator").addEventListener("change", chooseEvaluator);
    for (const id of ["pick-set", "pick-metric", "pick-method"]) $(id).addEventListener("change", filter);
    for (const id of ["find-text", "from", "to"]) $(id).addEventListener("input", filter);
    $("previous").addEventListener("click", () => go(-1));
    $("next").addEventListener("click", () => go(1));
    browser.addEventListener("keydown", (event) => {
      if (event.target.closest("input, select") || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "ArrowLeft") go(-1);
      if (event.key === "ArrowRight") go(1);
    });
    chooseTable();
  }

  window.addEventListener("beforeprint", () => all("details").forEach((each) => { each.open = true; }));
})();
