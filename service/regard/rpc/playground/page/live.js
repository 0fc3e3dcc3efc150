// Live: an answer as far as it has come, from the rows of attention that come with its tokens.

/** Gathers the tokens of a stream and their rows over the source. */
class Live {
    constructor(task, model, given) {
        this.given = given;
        this.tokens = [];
        this.source = null;
        this.layers = new Map();
        this.facts = { task, model: `${model.name}/${model.version}`, precision: model.precision, package_sha256: model.package_sha256 };
    }

    add({ text, source, attention = [] }) {
        this.tokens.push({ text: text.trim() || "·", special: text.trim() === "", spaced: this.tokens.length === 0 || /^\s/u.test(text) });
        if (source) this.source = axisOf(source, this.given.text ?? null, true);
        for (const row of attention) if (row.key_axis === "ATTENTION_AXIS_SOURCE") this.#layerOf(row).rows[row.query] = decode({ weights: row.weights, encoding: "float32" });
    }

    /** The answer that the rows make up so far; null as long as there is none. */
    get answer() {
        const layers = [...this.layers.values()];
        const queries = Math.min(this.tokens.length, ...layers.map(({ rows }) => lengthWithoutGap(rows)));
        if (!this.source || !layers.length || queries === 0) return null;
        const tokens = this.tokens.slice(0, queries);
        const output = tokens.map(({ text }) => text).join(" ");
        const target = { direction: RIGHT_TO_LEFT.test(output) ? "rtl" : "ltr", segments: tokens, grid: null };
        return {
            ...this.facts,
            source: this.given.text ?? null,
            picture: this.given.picture ?? null,
            output,
            classes: [],
            truncated: false,
            granularity: "token",
            axes: { source: this.source, target },
            maps: layers.map((layer) => mapOfRows(layer, queries)),
        };
    }

    #layerOf({ kind, layer, heads, reduction, shape }) {
        const name = `${kind} ${layer}`;
        if (!this.layers.has(name)) {
            const words = { kind: word(kind, "ATTENTION_KIND"), reduction: word(reduction, "ATTENTION_REDUCTION") };
            this.layers.set(name, { ...words, layer, heads, shape, rows: [] });
        }
        return this.layers.get(name);
    }
}

function lengthWithoutGap(rows) {
    const gap = rows.findIndex((row) => row === undefined);
    return gap < 0 ? rows.length : gap;
}

/** Puts rows [heads, keys] together to a map [heads, queries, keys]. */
function mapOfRows({ rows, shape: [heads, keys], ...named }, queries) {
    const values = new Float32Array(heads * queries * keys);
    for (let head = 0; head < heads; head++) {
        for (let query = 0; query < queries; query++) {
            values.set(rows[query].subarray(head * keys, (head + 1) * keys), (head * queries + query) * keys);
        }
    }
    return { ...named, stack: "decoder", query_axis: "target", key_axis: "source", shape: [heads, queries, keys], encoding: "float32", error: 0, values };
}

/** Draws once a frame at most, and leaves the page as long to itself as a drawing took: long answers take long. */
class Pace {
    #drawing = null;
    #wanted = false;
    #stopped = false;

    constructor(drawOnce) {
        this.drawOnce = drawOnce;
    }

    draw() {
        this.#wanted = true;
        this.#drawing ??= this.#drawWhileWanted();
    }

    stop() {
        this.#stopped = true;
    }

    async #drawWhileWanted() {
        while (this.#wanted) {
            const began = await nextFrame();
            if (this.#stopped) return;
            this.#wanted = false;
            this.drawOnce();
            const ended = await nextFrame();
            await new Promise((resolve) => { setTimeout(resolve, ended - began); });
        }
        this.#drawing = null;
    }
}

/** Returns when the next frame begins, and its time. */
function nextFrame() {
    return new Promise((resolve) => { requestAnimationFrame(resolve); });
}
