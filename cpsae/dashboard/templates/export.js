/* What is seen, as a file: CSV of the table, JSON of the table or of a feature. */

function download(name, type, content) {
  const link = make("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const inTable = (feature) => ({
  feature: feature.id,
  density: feature.density,
  largest_activation: feature.largest,
  enabled_at_step: feature.enabled,
  nearest_feature: feature.near.length ? feature.near[0].id : null,
  nearest_cosine: feature.near.length ? feature.near[0].share : null,
  top_tokens: feature.words.map((word) => word.text),
});

/* Tokens are a JSON list in one cell, which no program takes for a formula. */
function asCsv(features) {
  const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
  const cell = (value) =>
    value === null || value === undefined
      ? ""
      : Array.isArray(value)
        ? quoted(JSON.stringify(value))
        : String(value);
  const lines = features.map((feature) => Object.values(inTable(feature)).map(cell).join(","));
  const head = "feature,density,largest_activation,enabled_at_step,nearest_feature,nearest_cosine,top_tokens";
  return [head, ...lines].join("\r\n") + "\r\n";
}

const asJson = (value) => JSON.stringify(value, null, 1) + "\n";

function featureAsJson(feature) {
  const plain = (example) => ({
    activation: example.value,
    tokens: example.tokens.map((token) => token.text),
    values: example.tokens.map((token) => token.value),
  });
  const examples = feature.set.texts ? feature.examples : { top: [], bands: [], random: [] };
  return {
    ...inTable(feature),
    rows_fired_in: feature.count,
    histogram: { from: 0, to: feature.largest, counts: feature.histogram },
    nearest: feature.near,
    fires_with: feature.together,
    suppresses: feature.suppressed,
    logits: feature.logits,
    examples: {
      top: examples.top.map(plain),
      quantiles: examples.bands.map((band, i) => ({ quantiles: BANDS[i], examples: band.map(plain) })),
      random: examples.random.map(plain),
    },
  };
}

const BANDS = [
  [0.75, 1],
  [0.5, 0.75],
  [0.25, 0.5],
  [0, 0.25],
];
