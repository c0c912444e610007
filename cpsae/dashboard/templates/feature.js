/* One feature: its figures, examples, output tokens and relations. */

const BAND_NAMES = [
  "Top quarter of its activations",
  "Second quarter",
  "Third quarter",
  "Weakest quarter",
];

function showFeature(target, feature, { linkTo, beside }) {
  const texts = feature.set.texts;
  target.replaceChildren(
    featureHead(feature, { linkTo, beside }),
    featureStats(feature),
    make(
      "div",
      { class: "pair" },
      panel("Activations", "How strongly it fires, in the rows in which it does.", make("div", { class: "plot small", id: "histogram" })),
      logitPanel(feature),
    ),
    texts && feature.count ? examplesPanel(feature) : emptyExamples(feature),
    make(
      "div",
      { class: "trio" },
      relationPanel(feature, "Nearest in the decoder", "Cosine of the decoder rows.", feature.near, linkTo, (s) => s.toFixed(2)),
      relationPanel(feature, "Fires with", "Share of its rows in which the other one fires too; ordered by rows in common.", feature.together, linkTo, percent),
      relationPanel(feature, "Competitors", "On before the competition and off after it, in this share of the rows in which this one fires.", feature.suppressed, linkTo, percent),
    ),
  );
  if (feature.count) drawActivations(feature);
  else byId("histogram").replaceChildren(make("p", { class: "muted" }, "It fired in none of the rows that were looked at."));
}

function drawActivations(feature) {
  const counts = feature.histogram;
  const edges = Array.from({ length: counts.length + 1 }, (_, i) => (i / counts.length) * feature.largest);
  chart(byId("histogram"), `Histogram of its activations, from 0 to ${figures(feature.largest)}`, () =>
    bars(edges, counts, (low, high) => `${figures(low)} to ${figures(high)}`, {
      xaxis: axis("activation", { range: [0, feature.largest] }),
      yaxis: axis("", { rangemode: "tozero", nticks: 4 }),
      margin: { l: 40, r: 6, t: 6, b: 36 },
    }),
  );
}

function featureHead(feature, { linkTo, beside }) {
  const step = (way, sign, words) => {
    const other = beside(way);
    return make(
      "a",
      { class: "button", href: other ? linkTo(other.id) : null, "aria-label": words, "aria-disabled": other ? null : "true" },
      sign,
    );
  };
  const copy = make("button", { type: "button", id: "copy" }, "Copy link");
  copy.addEventListener("click", () => copyLink(copy, linkTo(feature.id)));
  return make(
    "header",
    { class: "detail-head" },
    make("a", { class: "back", href: "#features" }, "← All features"),
    make(
      "div",
      { class: "detail-title" },
      make("h2", {}, `Feature ${feature.id}`),
      make("div", { class: "chips" }, ...feature.words.map((word) => chip(word.text))),
    ),
    make(
      "div",
      { class: "detail-tools" },
      step(-1, "↑", "The feature before"),
      step(1, "↓", "The next feature"),
      copy,
      make(
        "button",
        {
          type: "button",
          id: "feature-json",
          onclick: () => download(`feature-${feature.id}.json`, "application/json", asJson(featureAsJson(feature))),
        },
        "JSON",
      ),
    ),
  );
}

async function copyLink(button, link) {
  const whole = new URL(link, location.href).href;
  try {
    await navigator.clipboard.writeText(whole);
    button.textContent = "Copied";
  } catch {
    location.hash = link;
    button.textContent = "In the address bar";
  }
  setTimeout(() => (button.textContent = "Copy link"), 1600);
}

function featureStats(feature) {
  const stat = (label, value, tip) =>
    make("div", { class: "stat" }, make("dt", { "data-tip": tip, tabindex: 0 }, label), make("dd", {}, value));
  const enabled = feature.enabled === null ? "–" : feature.enabled ? `by step ${whole(feature.enabled)}` : "from the start";
  return make(
    "dl",
    { class: "stats" },
    stat("Density", percent(feature.density), "The share of rows in which it fires."),
    stat("Rows", whole(feature.count), "In how many of the rows that were looked at it fires."),
    stat("Largest", figures(feature.largest), "Its largest activation."),
    stat("Enabled", enabled, "When it was enabled, as the log of the training has it."),
  );
}

function panel(title, tip, ...content) {
  return make(
    "section",
    { class: "panel" },
    make("h3", { "data-tip": tip, tabindex: tip ? 0 : null }, title),
    ...content,
  );
}

function logitPanel(feature) {
  const logits = feature.logits;
  if (!logits) {
    return panel(
      "Output tokens",
      null,
      make("p", { class: "muted" }, "Made without the language model's weights: cpsae report RUN --model NAME shows which tokens it promotes."),
    );
  }
  const most = Math.max(...logits.up.map((l) => l.value), ...logits.down.map((l) => -l.value), 1e-9);
  const side = (title, sign, list) =>
    make(
      "div",
      { class: `logits ${sign}` },
      make("h4", {}, title),
      make(
        "ol",
        {},
        ...list.map(({ token, value }) =>
          make(
            "li",
            {},
            make("i", { style: `width:${Math.max(2, (Math.abs(value) / most) * 100).toFixed(0)}%`, "aria-hidden": "true" }),
            chip(token),
            make("span", { class: "value" }, `${value > 0 ? "+" : "−"}${Math.abs(value).toPrecision(3)}`),
          ),
        ),
      ),
    );
  return panel(
    "Output tokens",
    "Its decoder row read by the model's final norm and head: the logit lens.",
    make("div", { class: "sides" }, side("Promoted", "up", logits.up), side("Suppressed", "down", logits.down)),
  );
}

function examplesPanel(feature) {
  const { top, bands, random } = feature.examples;
  const group = (name, list) =>
    list.length
      ? make("div", { class: "group" }, make("h4", {}, name), make("ol", { class: "examples" }, ...list.map((e) => exampleItem(e, feature))))
      : null;
  const first = 6;
  const rest = top.slice(first);
  const more = rest.length
    ? make("details", {}, make("summary", {}, `${rest.length} more`), make("ol", { class: "examples" }, ...rest.map((e) => exampleItem(e, feature))))
    : null;
  return make(
    "section",
    { class: "panel", id: "examples" },
    make("h3", { "data-tip": "Text on which it fires; the darker a token, the more. Point at a token for its value.", tabindex: 0 }, "Examples"),
    group("Where it fires most", top.slice(0, first)),
    more,
    ...bands.map((band, i) => group(BAND_NAMES[i], band)),
    group("Drawn at random from where it fires", random),
  );
}

const exampleItem = (example, feature) =>
  make("li", {}, make("span", { class: "value" }, figures(example.value)), exampleText(example, feature.largest));

function emptyExamples(feature) {
  if (!feature.count) return null;
  return panel("Examples", null, make("p", { class: "muted" }, "The store holds no tokens, so there is no text to show."));
}

function relationPanel(feature, title, tip, list, linkTo, say) {
  const items = list.map(({ id, share }) => {
    const other = feature.set.get(id);
    return make(
      "li",
      {},
      other ? make("a", { href: linkTo(id) }, `#${id}`) : make("span", {}, `#${id}`),
      make("span", { class: "chips" }, ...(other ? other.words.slice(0, 3).map((word) => chip(word.text)) : [])),
      make("span", { class: "value" }, say(share)),
    );
  });
  return panel(title, tip, items.length ? make("ol", { class: "relations" }, ...items) : make("p", { class: "muted" }, "None."));
}
