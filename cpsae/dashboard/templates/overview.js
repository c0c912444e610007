/* The overview: headline figures, features to begin with, charts, and what was trained on what. */

const CURVE_NAMES = {
  loss: ["Loss", "The loss of training, in normalised space."],
  mse: ["Squared error", "Its part that is the reconstruction's error, summed over dimensions."],
  l0: ["L0", "Latents that are not zero in a row, on average."],
  n_enabled: ["Enabled features", "How many features took part."],
  utilisation: ["Utilisation", "The share of enabled features that were on of late."],
  temperature: ["Temperature", "Of the competition between features."],
};

function showHeadlines(run, alone) {
  byId("line").textContent = alone ? run.line : `${run.name}: ${run.line}`;
  byId("headlines").replaceChildren(
    ...run.headlines.map(({ label, text, detail, meaning }) =>
      make(
        "li",
        { class: "card", tabindex: 0, "data-tip": meaning, "aria-description": meaning },
        make("span", { class: "label" }, label),
        make("strong", {}, text),
        make("span", { class: "fine" }, detail),
      ),
    ),
  );
  byId("facts").replaceChildren(
    ...run.facts.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text))),
  );
}

function showNotes(notes) {
  byId("notes").replaceChildren(...notes.map((note) => make("p", { class: "note" }, note)));
}

function showRuns(runs, linkTo) {
  if (runs.length < 2) return;
  const names = ["explained_variance", "l0", "ce_loss_score", "dead", "decoder_cosine"];
  const known = names.filter((name) => runs.some((run) => run.headlines.some((h) => h.name === name)));
  const label = (name) => runs.flatMap((run) => run.headlines).find((h) => h.name === name).label;
  const head = ["Run", "Method", ...known.map(label)].map((text) => make("th", { scope: "col" }, text));
  const body = runs.map((run, i) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, run.summary ? make("a", { href: linkTo(i) }, run.name) : run.name),
      make("td", {}, run.method),
      ...known.map((name) => make("td", {}, run.headlines.find((h) => h.name === name)?.text ?? "–")),
    ),
  );
  byId("runs").replaceChildren(make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
  byId("runs-block").hidden = false;
}

/* Features whose strongest examples agree, and that are neither rare nor everywhere. */
function promising(set, most) {
  if (!set.texts) return [];
  const score = (f) => f.words[0].share * Math.log(1 / f.density);
  const seen = new Set();
  return set
    .all()
    .filter((f) => f.count >= 20 && f.density < 0.05 && f.words.length && /\p{L}{3}/u.test(f.words[0].text))
    .sort((a, b) => score(b) - score(a) || a.id - b.id)
    .filter((f) => {
      const word = f.words[0].text.toLowerCase();
      return !seen.has(word) && seen.add(word);
    })
    .slice(0, most);
}

function showGallery(set, linkTo) {
  const found = promising(set, 6);
  byId("gallery-block").hidden = !found.length;
  byId("gallery").replaceChildren(
    ...found.map((feature) =>
      make(
        "article",
        { class: "tile" },
        make(
          "h3",
          {},
          make("a", { href: linkTo(feature.id) }, chip(feature.words[0].text)),
          make("span", { class: "fine" }, `feature ${feature.id}, on ${percent(feature.density)} of tokens`),
        ),
        ...distinct(feature.examples.top.map((example) => cut(example, 7, 6)))
          .slice(0, 3)
          .map((example) => exampleText(example, feature.largest)),
      ),
    ),
  );
}

/* Examples that do not say the same. */
function distinct(examples) {
  const said = (example) => example.tokens.map((token) => token.text).join("");
  return [...new Map(examples.map((example) => [said(example), example])).values()];
}

/* An example with fewer tokens around its own. */
function cut(example, before, after) {
  const at = example.tokens.findIndex((token) => token.peak);
  return { ...example, tokens: example.tokens.slice(Math.max(0, at - before), at + after + 1) };
}

function figure(title, tip, label, spec, foot = null) {
  const plot = make("div", { class: "plot" });
  const box = make(
    "figure",
    { class: "panel" },
    make("figcaption", {}, make("h3", { "data-tip": tip, tabindex: 0 }, title)),
    plot,
    foot,
  );
  return { box, draw: () => chart(plot, label, spec) };
}

function showCharts(data, number, actions) {
  const run = data.runs[number];
  const parts = [...frontierChart(data, number, actions), ...summaryCharts(run, actions), ...curveCharts(data.runs, number)];
  byId("charts").replaceChildren(...parts.map((part) => part.box));
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        observer.unobserve(entry.target);
        parts.find((part) => part.box === entry.target).draw();
      }
    },
    { rootMargin: "300px" },
  );
  for (const part of parts) observer.observe(part.box);
}

function frontierChart(data, number, actions) {
  const all = data.frontier.flatMap((line) => line.points);
  if (!all.length) return [];
  const spec = () => ({
    data: data.frontier.map((line, i) => ({
      type: "scatter",
      mode: line.points.length > 1 ? "lines+markers" : "markers",
      name: inHover(line.label),
      x: line.points.map((p) => p.l0),
      y: line.points.map((p) => p.explained_variance),
      error_y: {
        type: "data",
        symmetric: false,
        array: line.points.map((p) => (p.bar.length ? Math.max(0, p.bar[1] - p.explained_variance) : 0)),
        arrayminus: line.points.map((p) => (p.bar.length ? Math.max(0, p.explained_variance - p.bar[0]) : 0)),
        thickness: 1,
        width: 2,
      },
      line: { color: SERIES[i % SERIES.length], width: 1.5 },
      marker: {
        color: SERIES[i % SERIES.length],
        symbol: SYMBOLS[i % SYMBOLS.length],
        size: line.points.map((p) => (p.run === number ? 13 : 8)),
        line: { width: line.points.map((p) => (p.run === number ? 2 : 0)), color: colour("ink") },
      },
      customdata: line.points.map((p) => [inHover(p.name), p.run]),
      hovertemplate: "<b>%{customdata[0]}</b><br>L0 %{x:.4~g}, explains %{y:.4~g}<extra></extra>",
    })),
    layout: {
      xaxis: axis("L0 (latents a row)", logAxis(all.map((p) => p.l0))),
      yaxis: axis("explained variance", all.length > 1 ? {} : around(all[0].explained_variance)),
      showlegend: data.frontier.length > 1,
      legend: { orientation: "h", y: -0.28, font: { size: 11, color: colour("muted") } },
      margin: { l: 56, r: 14, t: 10, b: 44 },
    },
    click: (point) => point.customdata[1] !== null && actions.openRun(point.customdata[1]),
  });
  const others = all.some((p) => p.run === null);
  const tip = "Fewer latents against more explained: up and to the left is better. " + (others ? "The run of this page is the large mark; the others lie beside it." : "The large mark is the run that is shown.");
  const label = `Explained variance against L0: ${all.slice(0, 12).map((p) => `${p.name} ${p.explained_variance} at ${p.l0}`).join("; ")}`;
  const chartOf = figure("L0 against explained variance", tip, label, spec);
  chartOf.box.classList.toggle("wide", data.frontier.length > 1);
  return [chartOf];
}

/* What is near one value alone, so that its interval does not fill the chart. */
const around = (value) => ({ range: [value - 0.1, Math.min(1.02, value + 0.1)] });

/* A logarithmic axis with a label at 1, 2 and 5 times each power of ten that it shows. */
function logAxis(values) {
  const room = Math.max(1.3, (6 / (Math.max(...values) / Math.min(...values))) ** 0.5);
  const low = Math.min(...values) / room;
  const high = Math.max(...values) * room;
  const ticks = [];
  for (let power = -6; power < 7; power++) {
    for (const times of [1, 2, 5]) {
      const value = times * 10 ** power;
      if (value >= low && value <= high) ticks.push(value);
    }
  }
  return { type: "log", range: [Math.log10(low), Math.log10(high)], tickvals: ticks, ticktext: ticks.map((t) => figures(t)) };
}

function summaryCharts(run, actions) {
  const summary = run.summary;
  if (!summary) return [];
  const link = (which, text) =>
    make("button", { type: "button", class: "link", onclick: () => actions.openFilter(which) }, text);
  const foot = make(
    "p",
    { class: "fine" },
    link("silent", `${whole(summary.silent)} silent`),
    " · ",
    link("dense", `${whole(summary.dense)} dense`),
    ` · in ${whole(summary.rows)} rows`,
  );
  const range = densityRange(summary);
  const wide = range[1] - range[0] > 5;
  const powers = [-6, -5, -4, -3, -2, -1, 0].filter((p) => p > range[0] && (!wide || p % 2 === 0));
  const density = figure(
    "Density of features",
    "The share of rows in which each feature fires, on a logarithmic scale. Silent features fire in none of the rows that were looked at, dense ones in over 10 %.",
    `Histogram of log density of ${whole(summary.m)} features; ${summary.silent} silent, ${summary.dense} over 10 %`,
    () =>
      bars(summary.density_edges, summary.density, (low, high) => `${percent(10 ** low)} to ${percent(10 ** high)}`, {
        xaxis: axis("share of rows", { range, tickangle: 0, tickvals: powers, ticktext: powers.map((p) => percent(10 ** p)) }),
        yaxis: axis("features", { rangemode: "tozero", nticks: 5 }),
      }),
    foot,
  );
  const cosine = figure(
    "Decoder similarity",
    "The cosine of each feature's decoder row with its nearest neighbour's: features near 1 say the same thing twice.",
    "Histogram of the cosine with the nearest decoder row",
    () =>
      bars(summary.cosine_edges, summary.cosine, (low, high) => `${figures(low, 2)} to ${figures(high, 2)}`, {
        xaxis: axis("cosine with the nearest feature", { range: [-0.02, 1.02] }),
        yaxis: axis("features", { rangemode: "tozero", nticks: 5 }),
      }),
  );
  return [density, cosine];
}

const densityRange = (summary) => {
  const first = summary.density.findIndex((count) => count > 0);
  const low = first < 0 ? -6 : summary.density_edges[first];
  return [Math.min(-3, Math.floor(low)) - 0.05, 0.1];
};

function curveCharts(runs, number) {
  return Object.entries(CURVE_NAMES).flatMap(([key, [title, tip]]) => {
    const series = runs
      .filter((run) => run.curves[key])
      .map((run) => ({ name: run.name, x: run.curves.step, y: run.curves[key], chosen: run === runs[number] }))
      .sort((a, b) => a.chosen - b.chosen);
    const values = series.flatMap((one) => one.y).filter((value) => value !== null);
    const flat = values.every((value) => value === values[0]);
    if (!values.length || flat || (key === "mse" && sameAsLoss(runs))) return [];
    const positive = values.every((value) => value > 0);
    const wide = positive && Math.max(...values) > 30 * Math.min(...values);
    const log = key === "loss" || key === "mse" || (key === "l0" && wide);
    const last = series.map((one) => `${one.name} ends at ${one.y[one.y.length - 1]}`).slice(0, 8).join("; ");
    const options = log && positive ? logAxis(values) : { rangemode: "tozero" };
    return [figure(title, tip, `${title} over the steps of training: ${last}`, () => lines(series, "step", options))];
  });
}

const sameAsLoss = (runs) =>
  runs.every((run) => !run.curves.mse || run.curves.mse.every((value, i) => value === run.curves.loss?.[i]));
