/* Text on the page: elements made of text alone, numbers as people read them, tokens in context. */

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const figures = (value, digits = 3) =>
  value === null || value === undefined
    ? "–"
    : Math.abs(value) >= 10000
      ? Math.round(value).toLocaleString("en")
      : String(Number(Number(value).toPrecision(digits)));

const whole = (value) => value.toLocaleString("en");

function percent(share) {
  if (share === 0) return "0 %";
  const value = share * 100;
  return `${value >= 10 ? value.toFixed(0) : value >= 0.095 ? value.toPrecision(2) : figures(value, 1)} %`;
}

/* A token in a line of text: line ends and tabs become signs, blanks stay. */
const inLine = (text) => text.replace(/\r?\n/g, "↵").replace(/\t/g, "⇥");

/* A token by itself: blanks are signs too. */
function alone(text) {
  const shown = inLine(text);
  return shown.trim() ? shown.trim() : shown.replace(/ /g, "·") || "∅";
}

function chip(text) {
  return make("span", { class: "chip", dir: "auto" }, alone(text));
}

/* An example as a line: every token with its value at hand, the stronger the darker. */
function exampleText(example, largest) {
  const line = make("p", { class: "text", dir: "auto" });
  for (const token of example.tokens) {
    const share = largest ? token.value / largest : 0;
    if (!token.value && !token.peak) {
      line.append(make("span", { class: "t" }, inLine(token.text)));
      continue;
    }
    const level = Math.max(1, Math.ceil(share * 8));
    // blanks in front stay outside of the mark: a line that breaks there would mark its end
    const blanks = token.text.trim() ? /^ */.exec(token.text)[0] : "";
    line.append(blanks);
    const label = token.peak ? `${alone(token.text)}: activation ${figures(token.value)}` : null;
    line.append(
      make(
        "span",
        {
          class: `t on l${level}${token.peak ? " peak" : ""}`,
          "data-tip": `${alone(token.text)}  ${figures(token.value)}`,
          tabindex: token.peak ? 0 : null,
          role: token.peak ? "mark" : null,
          "aria-label": label,
        },
        inLine(token.text.slice(blanks.length)),
      ),
    );
  }
  return line;
}

/* One tooltip for all that has data-tip, on hover, focus and touch. */
function watchTips() {
  const tip = byId("tip");
  const hide = () => {
    tip.hidden = true;
  };
  const show = (target) => {
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const place = target.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = place.left + place.width / 2 - own.width / 2;
    const above = place.top - own.height - 8;
    tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - own.width - 8))}px`;
    tip.style.top = `${above < 8 ? place.bottom + 8 : above}px`;
  };
  const over = (event) => {
    const target = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    if (target) show(target);
    else hide();
  };
  document.addEventListener("pointerover", over);
  document.addEventListener("focusin", over);
  document.addEventListener("pointerdown", over);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}
