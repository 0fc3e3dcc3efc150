// Live: an answer as far as it has come, from the rows of attention that come with its tokens.

/**
 * Gathers the tokens of a stream and their rows over the source, which may be the beginning of what the decoder reads.
 * Those over a sound are looked at when its windows are done.
 */
class Live {
    constructor(task, model, given) {
        this.given = given;
        this.tokens = [];
        this.source = null;
        this.keyAxis = null;
        this.layers = new Map();
        this.facts = { task, model: `${model.name}/${model.version}`, precision: model.precision, package_sha256: model.package_sha256 };
    }

    add({ text, source, attention = [] }) {
        this.tokens.push({ text: text.trim() || "·", special: text.trim() === "", spaced: this.tokens.length === 0 || /^\s/u.test(text) });
        if (source && !source.frames) [this.source, this.keyAxis] = [axisOf(source, [this.given.text ?? null], true), source.axis];
        for (const row of attention) if (row.key_axis === this.keyAxis) this.#layerOf(row).rows[row.query] = { keys: row.shape[1], values: decode({ weights: row.weights, encoding: "float32" }) };
    }

    /** The answer that the rows make up so far; null as long as there is none. */
    get answer() {
        const layers = [...this.layers.values()];
        const queries = Math.min(this.tokens.length, ...layers.map(({ rows }) => lengthWithoutGap(rows)));
        if (!this.source || !layers.length || queries === 0) return null;
        const tokens = this.tokens.slice(0, queries);
        const output = tokens.map(({ text }) => text).join(" ");
        const target = { direction: RIGHT_TO_LEFT.test(output) ? "rtl" : "ltr", segments: tokens, grid: null };
        const keys = Math.max(...layers.flatMap(({ rows }) => rows.slice(0, queries).map((row) => row.keys)));
        return {
            ...this.facts,
            source: this.given.text ?? null,
            picture: this.given.picture ?? null,
            output,
            classes: [],
            marked: null,
            truncated: false,
            granularity: "token",
            axes: { [AXES[this.keyAxis]]: this.#keys(keys), target },
            maps: layers.map((layer) => mapOfRows(layer, AXES[this.keyAxis], queries, keys)),
        };
    }

    /** The source, and behind it what the decoder reads of its own: the start token, if there is one, and the output. */
    #keys(count) {
        const before = this.source.segments;
        const starts = this.layers.values().next().value.rows[0].keys - before.length;
        const start = Array.from({ length: starts }, () => ({ text: "start", special: true, spaced: true }));
        return { ...this.source, segments: [...before, ...start, ...this.tokens].slice(0, count) };
    }

    #layerOf({ kind, layer, heads, reduction, shape }) {
        const name = `${kind} ${layer}`;
        if (!this.layers.has(name)) {
            const words = { kind: word(kind, "ATTENTION_KIND"), reduction: word(reduction, "ATTENTION_REDUCTION") };
            this.layers.set(name, { ...words, layer, heads, planes: shape[0], rows: [] });
        }
        return this.layers.get(name);
    }
}

function lengthWithoutGap(rows) {
    const gap = rows.findIndex((row) => row === undefined);
    return gap < 0 ? rows.length : gap;
}

/** Puts rows [planes, keys] together to a map [planes, queries, keys]; what a row doesn't reach it could not see. */
function mapOfRows({ rows, planes, ...named }, keyAxis, queries, keys) {
    const values = new Float32Array(planes * queries * keys);
    for (let plane = 0; plane < planes; plane++) {
        for (let query = 0; query < queries; query++) {
            const row = rows[query];
            values.set(row.values.subarray(plane * row.keys, (plane + 1) * row.keys), (plane * queries + query) * keys);
        }
    }
    return { ...named, stack: "decoder", query_axis: "target", key_axis: keyAxis, shape: [planes, queries, keys], encoding: "float32", error: 0, values };
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
