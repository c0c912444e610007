/* Which part is seen, by the address behind #: overview, features, f123, and r2f123 of a third run. */

const state = { data: null, sets: new Map(), run: -1, table: null };

async function begin() {
  watchTips();
  watchTheme();
  if (!window.DecompressionStream) {
    trouble("This browser is too old to read the page's data; a newer one shows it.");
    return;
  }
  state.data = await unpack("overview-data");
  const { runs, notes, version } = state.data;
  showNotes(notes);
  showRuns(runs, (number) => link(number, null));
  byId("foot").textContent = `Made by cpsae ${version}. Everything on this page is in the file; nothing is fetched.`;
  const browsable = runs.filter((run) => run.summary);
  if (browsable.length > 1) {
    byId("run").replaceChildren(...browsable.map((run, i) => make("option", { value: i }, run.name)));
    byId("run-pick").hidden = false;
    byId("run").addEventListener("change", (event) => goTo(link(Number(event.target.value), null)));
  }
  state.table = new Table((id) => goTo(link(state.run, id)));
  state.table.linkTo = (id) => link(state.run, id);
  byId("csv").addEventListener("click", () => download("features.csv", "text/csv", asCsv(state.table.shown)));
  byId("json").addEventListener("click", () =>
    download("features.json", "application/json", asJson(state.table.shown.map(inTable))),
  );
  window.addEventListener("hashchange", route);
  document.addEventListener("keydown", onKey);
  await route();
  document.documentElement.dataset.ready = String(Math.round(performance.now())); // ms
}

/* Of a run's list of features, or of one of them; the first run's features need no run. */
function link(run, feature) {
  if (feature === null) return state.data.runs.length > 1 ? `#r${run}` : "#features";
  return run > 0 ? `#r${run}f${feature}` : `#f${feature}`;
}

function goTo(hash) {
  if (location.hash === hash) route();
  else location.hash = hash;
}

async function route() {
  const asked = location.hash.slice(1);
  const found = /^(?:r(\d+))?(?:f(\d+))?$/.exec(asked);
  const isOverview = !asked || asked === "overview" || (!found && asked !== "features");
  await useRun(found?.[1] ? Number(found[1]) : found?.[2] || state.run < 0 ? 0 : state.run);
  for (const part of ["overview", "features"]) {
    const here = (part === "overview") === isOverview;
    byId(part).hidden = !here;
    if (here) byId(`tab-${part}`).setAttribute("aria-current", "page");
    else byId(`tab-${part}`).removeAttribute("aria-current");
  }
  const set = state.sets.get(state.run);
  if (isOverview || !set) {
    document.body.dataset.view = "overview";
    window.scrollTo(0, 0);
    return;
  }
  const chosen = found?.[2] ? Number(found[2]) : null;
  document.body.dataset.view = chosen === null ? "list" : "feature";
  const first = promising(set, 1)[0] ?? state.table.shown[0];
  openFeature(set, chosen ?? first?.id ?? null, chosen !== null);
}

function openFeature(set, id, asked) {
  const feature = id === null ? null : set.get(id);
  if (!feature) {
    const words = asked
      ? `There is no feature ${id} on this page: it has ${whole(set.size)} of ${whole(set.summary.n)}.`
      : "No feature fits.";
    byId("detail").replaceChildren(make("a", { class: "back", href: "#features" }, "← All features"), make("p", { class: "muted" }, words));
    return;
  }
  if (asked) state.table.reveal(feature.id);
  else state.table.mark(feature.id);
  showFeature(byId("detail"), feature, {
    linkTo: (other) => link(state.run, other),
    beside: (step) => state.table.beside(feature.id, step),
  });
  byId("detail").scrollTop = 0;
  if (asked) {
    document.title = `Feature ${feature.id} · ${state.data.title}`;
    if (matchMedia("(max-width: 900px)").matches) {
      window.scrollTo(0, 0);
      byId("detail").focus({ preventScroll: true }); // the list that had it is not seen any more
    }
  }
}

async function useRun(number) {
  const { runs } = state.data;
  const chosen = runs[number]?.summary ? number : 0;
  if (state.run === chosen) return;
  state.run = chosen;
  const run = runs[chosen];
  showHeadlines(run, runs.length === 1);
  if (!state.sets.has(chosen) && run.summary) {
    state.sets.set(chosen, new FeatureSet(await unpack(`detail-data-${chosen}`), run.summary));
  }
  byId("run").value = String(chosen);
  const set = state.sets.get(chosen);
  if (set) {
    state.table.use(set);
    showGallery(set, (id) => link(chosen, id));
  }
  showCharts(state.data, chosen, {
    openRun: (other) => runs[other].summary && goTo(link(other, null)),
    openFilter: (which) => {
      state.table.only(which);
      goTo("#features");
    },
  });
}

function onKey(event) {
  const typing = event.target.closest?.("input, select, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    if (byId("features").hidden) goTo("#features");
    requestAnimationFrame(() => byId("search").focus());
  }
  const step = { j: 1, k: -1 }[event.key];
  if (step && !typing && !byId("features").hidden && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const other = state.table.beside(state.table.current, step);
    if (other) goTo(link(state.run, other.id));
  }
}

function watchTheme() {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  byId("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
    root.dataset.theme = isDark ? "light" : "dark";
    redrawAll();
  });
  dark.addEventListener("change", redrawAll);
}

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = false;
}

begin().catch((error) => {
  trouble(`The page's data cannot be shown (${error.message}).`);
  throw error;
});
