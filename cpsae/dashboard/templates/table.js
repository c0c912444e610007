/* The table of features: sorted, searched, filtered, some rows at a time. */

const COLUMNS = [
  { key: "id", name: "Feature", of: (f) => f.id, up: true },
  { key: "words", name: "Top tokens", of: (f) => (f.words.length ? f.words[0].text.toLowerCase() : "\uffff"), up: true },
  { key: "density", name: "Density", of: (f) => f.density, tip: "The share of rows in which it fires: is over 1 % of the row's largest latent." },
  { key: "largest", name: "Largest", of: (f) => f.largest, tip: "Its largest activation, in the autoencoder's own units." },
  { key: "enabled", name: "Enabled", of: (f) => f.enabled ?? -1, tip: "The step by which it was enabled, as the log has it; 0 from the start." },
  { key: "near", name: "Nearest", of: (f) => (f.near.length ? f.near[0].share : -2), tip: "The cosine of its decoder row with the nearest other one, and which feature that is." },
];
const ROWS_AT_ONCE = 100;

const FILTERS = {
  all: () => true,
  fires: (f) => f.count > 0,
  rare: (f) => f.count > 0 && f.density < 0.001,
  dense: (f) => f.density > 0.1,
  silent: (f) => f.count === 0,
  late: (f) => f.enabled > 0,
};

class Table {
  constructor(open) {
    this.open = open;
    this.sorted = { key: "density", up: false };
    this.features = [];
    this.shown = [];
    this.visible = 0;
    this.drawHead();
    byId("search").addEventListener("input", () => this.refresh());
    byId("which").addEventListener("change", () => this.refresh());
    byId("sort").addEventListener("change", (event) => {
      const [key, way] = event.target.value.split(" ");
      this.sortBy(key, way === "up");
    });
    byId("more-rows").addEventListener("click", () => this.addRows());
    byId("rows-scroll").addEventListener("scroll", (event) => this.onScroll(event.target), { passive: true });
    window.addEventListener("scroll", () => this.onScroll(document.scrollingElement), { passive: true });
  }

  use(set) {
    this.set = set;
    this.features = set.all();
    this.refresh();
  }

  /* How it is filtered and searched, from the outside. */
  only(which) {
    byId("which").value = which;
    byId("search").value = "";
    this.refresh();
  }

  sortBy(key, up) {
    this.sorted = { key, up };
    this.refresh();
  }

  refresh() {
    const words = byId("search").value.trim().toLowerCase();
    const fits = FILTERS[byId("which").value];
    const { key, up } = this.sorted;
    const { of } = COLUMNS.find((column) => column.key === key);
    const sign = up ? 1 : -1;
    this.shown = this.features
      .filter((f) => fits(f) && matches(f, words))
      .map((f) => [of(f), f])
      .sort(([a, f], [b, g]) => (a < b ? -sign : a > b ? sign : f.id - g.id))
      .map(([, f]) => f);
    byId("count").textContent =
      this.shown.length === this.features.length
        ? `${whole(this.shown.length)} features`
        : `${whole(this.shown.length)} of ${whole(this.features.length)} features`;
    this.drawHead();
    byId("rows").tBodies[0].replaceChildren();
    this.visible = 0;
    this.addRows();
  }

  drawHead() {
    const cells = COLUMNS.map(({ key, name, tip }) => {
      const active = this.sorted.key === key;
      const arrow = active ? (this.sorted.up ? "↑" : "↓") : "";
      const button = make(
        "button",
        { type: "button", "data-tip": tip, onclick: () => this.onHead(key) },
        name,
        make("span", { class: "arrow", "aria-hidden": "true" }, arrow),
      );
      return make(
        "th",
        { scope: "col", class: `c-${key}`, "aria-sort": active ? (this.sorted.up ? "ascending" : "descending") : null },
        button,
      );
    });
    const focused = document.activeElement?.closest?.("th")?.className;
    byId("rows").tHead.replaceChildren(make("tr", {}, ...cells));
    if (focused) byId("rows").tHead.getElementsByClassName(focused)[0]?.firstChild.focus();
    const options = COLUMNS.flatMap(({ key, name }) => [
      make("option", { value: `${key} down` }, `${name} ↓`),
      make("option", { value: `${key} up` }, `${name} ↑`),
    ]);
    byId("sort").replaceChildren(...options);
    byId("sort").value = `${this.sorted.key} ${this.sorted.up ? "up" : "down"}`;
  }

  onHead(key) {
    const { up } = COLUMNS.find((column) => column.key === key);
    this.sortBy(key, this.sorted.key === key ? !this.sorted.up : Boolean(up));
  }

  onScroll(element) {
    if (!byId("features").hidden && element.scrollTop + element.clientHeight > element.scrollHeight - 600) {
      this.addRows();
    }
  }

  addRows(until = this.visible + ROWS_AT_ONCE) {
    const next = this.shown.slice(this.visible, until);
    this.visible += next.length;
    byId("rows").tBodies[0].append(...next.map((feature) => this.row(feature)));
    byId("more-rows").hidden = this.visible >= this.shown.length;
    this.mark(this.current);
  }

  /* Mark a feature, and bring its row into sight where that is not far. */
  reveal(id) {
    const at = this.shown.findIndex((feature) => feature.id === id);
    if (at >= this.visible && at < this.visible + 3 * ROWS_AT_ONCE) this.addRows(at + ROWS_AT_ONCE);
    this.mark(id);
    byId("rows").tBodies[0].rows[at]?.scrollIntoView({ block: "nearest" });
  }

  row(feature) {
    const nearest = feature.near[0];
    const scale = feature.density ? Math.max(0.03, 1 + Math.log10(feature.density) / 5) : 0;
    return make(
      "tr",
      { "data-feature": feature.id, onclick: () => this.open(feature.id) },
      make("th", { scope: "row", class: "c-id" }, make("a", { href: this.linkTo(feature.id) }, String(feature.id))),
      make("td", { class: "c-words" }, ...feature.words.slice(0, 4).map((word) => chip(word.text))),
      make(
        "td",
        { class: "c-density" },
        make("span", { class: "gauge", "aria-hidden": "true" }, make("i", { style: `width:${(scale * 100).toFixed(0)}%` })),
        percent(feature.density),
      ),
      make("td", { class: "c-largest" }, figures(feature.largest)),
      make("td", { class: "c-enabled" }, feature.enabled === null ? "–" : whole(feature.enabled)),
      make(
        "td",
        { class: "c-near" },
        ...(nearest ? [nearest.share.toFixed(2), " ", make("small", {}, `#${nearest.id}`)] : ["–"]),
      ),
    );
  }

  mark(id) {
    this.current = id;
    for (const row of byId("rows").tBodies[0].rows) {
      const here = Number(row.dataset.feature) === id;
      row.classList.toggle("chosen", here);
      const link = row.querySelector("a");
      if (here) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  /* The feature so many rows further on in the table as it stands. */
  beside(id, step) {
    const at = this.shown.findIndex((feature) => feature.id === id);
    return at < 0 ? this.shown[0] : this.shown[at + step];
  }
}

function matches(feature, words) {
  if (!words) return true;
  if (/^#?f?\d+$/.test(words)) {
    const number = words.replace(/\D/g, "");
    return String(feature.id) === number || feature.searched.split("\n").includes(number);
  }
  return feature.searched.includes(words);
}
