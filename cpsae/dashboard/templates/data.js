/* The page's data: compressed JSON in the page, and features as objects made of its columns. */

const byId = (id) => document.getElementById(id);

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function unpackText(id) {
  const bytes = bytesOf(byId(id).textContent.trim());
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const unpack = async (id) => JSON.parse(await unpackText(id));

/* The features of one run. */
class FeatureSet {
  constructor(detail, summary) {
    this.columns = detail.features;
    this.texts = detail.texts;
    this.lens = detail.lens;
    this.summary = summary;
    this.size = this.columns.count.length;
    const ids = this.columns.ids;
    this.places = ids ? new Map(ids.map((id, place) => [id, place])) : null;
    this.kept = new Map();
  }

  idAt(place) {
    return this.columns.ids ? this.columns.ids[place] : place;
  }

  has(id) {
    return this.places ? this.places.has(id) : Number.isInteger(id) && id >= 0 && id < this.size;
  }

  get(id) {
    if (!this.has(id)) return null;
    if (!this.kept.has(id)) {
      this.kept.set(id, new Feature(this, id, this.places ? this.places.get(id) : id));
    }
    return this.kept.get(id);
  }

  all() {
    return Array.from({ length: this.size }, (_, place) => this.get(this.idAt(place)));
  }
}

class Feature {
  constructor(set, id, place) {
    const columns = set.columns;
    this.set = set;
    this.id = id;
    this.place = place;
    this.count = columns.count[place];
    this.density = set.summary.rows ? this.count / set.summary.rows : 0;
    this.largest = columns.largest[place];
    this.enabled = columns.enabled[place];
    this.words = mergedWords(set, columns.words[place]);
    this.near = columns.near[place].map((other, i) => ({
      id: other,
      share: columns.cosine[place][i] / 1000,
    }));
    this.searched = this.words.map((word) => word.text.toLowerCase()).join("\n");
  }

  get histogram() {
    return this.set.columns.histogram[this.place];
  }

  get together() {
    return relations(this.set.columns.together[this.place]);
  }

  get suppressed() {
    return relations(this.set.columns.suppressed[this.place]);
  }

  /* [{token, value}] of the output tokens that it promotes, and of those that it suppresses. */
  get logits() {
    const lens = this.set.lens;
    if (!lens) return null;
    const side = (tokens, values) =>
      tokens[this.place].map((word, i) => ({
        token: lens.vocabulary[word],
        value: values[this.place][i],
      }));
    return { up: side(lens.up, lens.up_logits), down: side(lens.down, lens.down_logits) };
  }

  /* {top, bands, random}: lists of examples, each {value, tokens: [{text, value, peak}]}. */
  get examples() {
    if (!this.shown) this.shown = this.findExamples();
    return this.shown;
  }

  findExamples() {
    const [gaps, strengths] = this.set.columns.marks[this.place];
    const rows = [];
    let row = 0;
    for (const gap of gaps) rows.push((row += gap));
    const marks = new Map(rows.map((r, i) => [r, (strengths[i] / 1000) * this.largest]));
    const example = (mark) => this.exampleAt(rows[mark], marks);
    const [top, bands, random] = this.set.columns.examples[this.place];
    return {
      top: top.map(example),
      bands: bands.map((band) => band.map(example)),
      random: random.map(example),
    };
  }

  exampleAt(row, marks) {
    const texts = this.set.texts;
    const context = Math.floor(row / texts.rows);
    const words = texts.contexts[context];
    const at = (row % texts.rows) + texts.first;
    const tokens = [];
    const end = Math.min(words.length, at + texts.after + 1);
    for (let i = Math.max(0, at - texts.before); i < end; i++) {
      const value = i < texts.first ? 0 : marks.get(context * texts.rows + i - texts.first) || 0;
      tokens.push({ text: texts.vocabulary[words[i]], value, peak: i === at });
    }
    return { value: marks.get(row), tokens };
  }
}

const relations = (pairs) => pairs.map(([id, share]) => ({ id, share: share / 1000 }));

/* Tokens that differ by blanks at their ends alone are one word to a reader. */
function mergedWords(set, pairs) {
  const merged = new Map();
  for (const [word, share] of pairs) {
    const exact = set.texts.vocabulary[word];
    const text = exact.trim() || exact;
    merged.set(text, (merged.get(text) || 0) + share / 1000);
  }
  return [...merged].map(([text, share]) => ({ text, share })).sort((a, b) => b.share - a.share);
}
