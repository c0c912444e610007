/* Charts, drawn by plotly in the page's own colours, again when these change. */

const drawn = new Map();
let library = null;

function loadLibrary() {
  library ??= whenIdle().then(() => unpackText("library-data")).then((text) => {
    document.head.append(make("script", {}, text));
    return window.Plotly;
  });
  return library;
}

/* All that can be read and used comes first: to run the library takes a while. */
const whenIdle = () =>
  new Promise((go) => (window.requestIdleCallback ? requestIdleCallback(go, { timeout: 500 }) : setTimeout(go, 50)));

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/* Okabe and Ito's colours, which people of every kind of sight tell apart. */
const SERIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8b8b8b", "#882255"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];

function axis(title, more = {}) {
  return {
    title: title ? { text: title, standoff: 8, font: { size: 12, color: colour("muted") } } : undefined,
    gridcolor: colour("grid"),
    linecolor: colour("line"),
    zerolinecolor: colour("grid"),
    tickcolor: colour("line"),
    tickfont: { size: 11, color: colour("muted") },
    automargin: true,
    fixedrange: true,
    ticklabeloverflow: "allow",
    ...more,
  };
}

function layout(more) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, color: colour("ink"), size: 12 },
    margin: { l: 48, r: 14, t: 10, b: 40 },
    hoverlabel: {
      bgcolor: colour("tip"),
      bordercolor: colour("tip"),
      font: { color: colour("tip-ink"), size: 12 },
    },
    showlegend: false,
    dragmode: false,
    bargap: 0.06,
    ...more,
  };
}

/* Draw into `element` what `spec()` gives: {data, layout, click}; `label` says it in words. */
async function chart(element, label, spec) {
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", label);
  drawn.set(element, spec);
  const plotly = await loadLibrary();
  if (drawn.get(element) !== spec || !element.isConnected) return;
  await draw(plotly, element, spec);
}

async function draw(plotly, element, spec) {
  const { data, layout: wanted, click } = spec();
  await plotly.react(element, data, layout(wanted), { displayModeBar: false, responsive: true });
  element.removeAllListeners?.("plotly_click");
  if (click) element.on("plotly_click", (event) => click(event.points[0]));
}

async function redrawAll() {
  if (!library) return;
  const plotly = await library;
  for (const [element, spec] of drawn) {
    if (element.isConnected) await draw(plotly, element, spec);
    else drawn.delete(element);
  }
}

/* A histogram: `edges` has one number more than `counts`. */
function bars(edges, counts, hover, options = {}) {
  const middle = counts.map((_, i) => (edges[i] + edges[i + 1]) / 2);
  return {
    data: [
      {
        type: "bar",
        x: middle,
        y: counts,
        width: counts.map((_, i) => (edges[i + 1] - edges[i]) * 0.9),
        marker: { color: colour("accent"), line: { width: 0 } },
        customdata: counts.map((_, i) => hover(edges[i], edges[i + 1])),
        hovertemplate: "%{customdata}: <b>%{y:,}</b><extra></extra>",
      },
    ],
    layout: options,
  };
}

/* A line for each {name, x, y, chosen}; those that are not chosen stand back. */
function lines(series, xTitle, yOptions = {}) {
  return {
    data: series.map(({ name, x, y, chosen }) => ({
      type: "scatter",
      mode: "lines",
      name: inHover(name),
      x,
      y,
      line: { color: colour(chosen ? "accent" : "faint"), width: chosen ? 2.2 : 1 },
      hovertemplate: `${series.length > 1 ? `${inHover(name)}, ` : ""}step %{x:,}: <b>%{y:.4~g}</b><extra></extra>`,
    })),
    layout: { xaxis: axis(xTitle, { rangemode: "tozero" }), yaxis: axis("", yOptions) },
  };
}

/* plotly reads some tags and %{…} in its labels: names are to be seen as they are. */
const inHover = (text) =>
  String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("%{", "% {");
