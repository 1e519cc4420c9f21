// The filters above the DAG, kept in the URL, and the legend below it.

const DEFAULTS = { view: "graph", colour: "score", track: "", agent: "", outcome: "", time: "", q: "", fold: "", c: "" };

export function readState() {
  const query = new URLSearchParams(location.search);
  const state = { ...DEFAULTS };
  for (const name of Object.keys(state)) if (query.has(name)) state[name] = query.get(name);
  return state;
}

export function writeState(state) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value !== DEFAULTS[name]) query.set(name, value);
  const text = query.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}

export class Tools {
  constructor(state, onChange) {
    this.form = document.getElementById("tools");
    this.state = state;
    let timer = 0;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      onChange("go");
    });
    this.form.addEventListener("input", (event) => {
      const { name } = event.target;
      clearTimeout(timer);
      timer = setTimeout(() => {
        this._read();
        onChange(name);
      }, name === "q" ? 220 : 0);
    });
  }

  _read() {
    const data = new FormData(this.form);
    for (const name of ["view", "colour", "track", "agent", "outcome", "time", "q"]) {
      this.state[name] = data.get(name) ?? "";
    }
    this.state.fold = data.has("fold") ? "1" : "0";
  }

  /** Show the state in the fields, and what can be chosen by now. */
  show(store, isFolded) {
    const { form, state } = this;
    fill(form.elements.agent, [...store.agents].sort().map((name) => [name, name]), state.agent);
    fill(form.elements.track, store.tracks.map(({ id, label }) => [String(id), label]), state.track);
    for (const name of ["colour", "outcome", "time"]) form.elements[name].value = state[name];
    form.elements.view.value = state.view;
    form.elements.fold.checked = isFolded;
    if (document.activeElement !== form.elements.q) form.elements.q.value = state.q;
    for (const field of form.querySelectorAll("select")) field.classList.toggle("set", field.value !== field.options[0].value);
  }

  focusSearch() {
    this.form.elements.q.focus();
  }
}

/** The first option stays: it means everything. */
function fill(select, options, value) {
  const wanted = options.map(([key]) => key);
  if (value && !wanted.includes(value)) options = [...options, [value, value]];
  const known = [...select.options].slice(1).map((option) => option.value);
  if (known.join("\n") !== options.map(([key]) => key).join("\n")) {
    select.replaceChildren(select.options[0], ...options.map(([key, text]) => new Option(text, key)));
  }
  select.value = value;
}

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = ["M6 1.5a4.5 4.5 0 1 0 .01 0z", "M6 2.5a3.5 3.5 0 1 0 .01 0z", "M2.5 2.5l7 7M9.5 2.5l-7 7"];

export function showLegend(items, fallback) {
  const list = document.getElementById("legend");
  list.replaceChildren(
    ...items.map((item) => {
      const entry = document.createElement("li");
      if (item.ramp) entry.append(text(item.from), bar(item.ramp), text(item.to));
      else entry.append(mark(item.mark, item.colour ?? fallback), text(item.text));
      return entry;
    }),
  );
}

function text(content) {
  return Object.assign(document.createElement("span"), { textContent: content });
}

function bar(stops) {
  const element = document.createElement("span");
  element.className = "ramp";
  element.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  return element;
}

function mark(kind, colour) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 12 12");
  svg.setAttribute("class", "mark");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", SHAPES[kind]);
  path.setAttribute("fill", kind === 0 ? colour : "none");
  path.setAttribute("stroke", kind === 0 ? "none" : colour);
  path.setAttribute("stroke-width", "1.8");
  svg.append(path);
  return svg;
}
