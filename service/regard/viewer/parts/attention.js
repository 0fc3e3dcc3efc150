// Attention: the weights of an answer, decoded when they are first looked at.

const MEAN = "mean";
const STACKS = { encoder: "Encoder", decoder: "Decoder", text_encoder: "Text encoder", image_encoder: "Image encoder" };
const TITLES = { source: "Source", target: "Output", decoder_input: "Output so far" };
/** What axes are called in the answers of a task, where it isn't that. */
const TITLES_OF_TASKS = {
    answered_question: { source: "Question and context" },
    completion: { decoder_input: "Prompt and output so far" },
};

/** The weights of one head, or the mean of several: `queries` rows of `keys` weights. */
class Plane {
    constructor(values, queries, keys) {
        this.values = values;
        this.queries = queries;
        this.keys = keys;
        this.most = values.reduce((most, value) => Math.max(most, value), 0);
    }

    at(query, key) {
        return this.values[query * this.keys + key];
    }

    row(query) {
        return this.values.subarray(query * this.keys, (query + 1) * this.keys);
    }

    column(key) {
        return Float32Array.from({ length: this.queries }, (_, query) => this.at(query, key));
    }
}

/** A sequence of words, tokens, patches or frames of a sound that queries or keys run over. */
class Axis {
    constructor(title, { direction, segments, grid, frames = null }) {
        this.title = grid ? "Image" : frames ? "Sound" : title;
        this.direction = direction;
        this.segments = segments;
        this.grid = grid;
        this.frames = frames;
        this.places = segments.map((_, index) => index);
        const ordinary = this.places.filter((index) => !segments[index].special);
        this.patches = grid ? ordinary.slice(0, grid.rows * grid.columns) : [];
        const end = this.patches.at(-1) ?? -1;
        this.heard = frames ? ordinary.length : 0; // the frames behind them are the silence that fills the window
        this.words = frames ? [] : grid ? this.places.filter((index) => segments[index].special || index > end) : this.places;
    }

    /** Names one element for people: a word as it is, a patch by its place from 1, a frame by when it begins. */
    nameOf(index) {
        if (this.frames) return `${(this.frames.start + index * this.frames.seconds).toFixed(2)} s`;
        const patch = this.patches.indexOf(index);
        if (patch < 0) return this.segments[index].text;
        return `row ${Math.floor(patch / this.grid.columns) + 1}, column ${(patch % this.grid.columns) + 1}`;
    }

    isSpecial(index) {
        return this.segments[index].special;
    }
}

/** The layers of one kind of attention in one stack, all over the same two axes. */
class Family {
    constructor(kind, stack, queries, keys) {
        this.kind = kind;
        this.stack = stack;
        this.queries = queries;
        this.keys = keys;
        this.maps = new Map();
        this.planes = new Map();
    }

    get name() {
        return this.kind === "cross" ? "Cross-attention" : `${STACKS[this.stack]} self-attention`;
    }

    get layers() {
        return [...this.maps.keys()].sort((one, other) => one - other);
    }

    /** What may be looked at in a layer: the mean of its heads, then each; or the one thing that there is. */
    headsOf(layer) {
        const { heads, shape, reduction } = this.maps.get(layer);
        if (shape[0] > 1) return [MEAN, ...heads];
        const ofLayers = reduction === "rollout" || reduction === "alignment_heads"; // one head's, too, is not its own map
        return [heads.length > 1 || ofLayers ? MEAN : heads[0]];
    }

    /** Names a head for people; what was made of several by how. */
    headName(layer, head) {
        if (head !== MEAN) return `head ${head}`;
        const { reduction } = this.maps.get(layer);
        const names = { max: "max of heads", rollout: "rollout", alignment_heads: "mean of the alignment heads" };
        return names[reduction] ?? "mean of heads";
    }

    plane(layer, head) {
        const name = `${layer} ${head}`;
        if (!this.planes.has(name)) this.planes.set(name, this.#makePlane(layer, head));
        return this.planes.get(name);
    }

    #makePlane(layer, head) {
        const map = this.maps.get(layer);
        const [count, queries, keys] = map.shape;
        map.values ??= decode(map);
        const size = queries * keys;
        if (head !== MEAN || count === 1) {
            const place = count === 1 ? 0 : map.heads.indexOf(head);
            return new Plane(map.values.subarray(place * size, (place + 1) * size), queries, keys);
        }
        const mean = new Float32Array(size);
        for (let index = 0; index < map.values.length; index++) mean[index % size] += map.values[index] / count;
        return new Plane(mean, queries, keys);
    }
}

/** Groups an answer's maps into families: cross-attention first, then by stack. */
function familiesOf({ task, axes, maps }) {
    const titles = { ...TITLES, ...TITLES_OF_TASKS[task] };
    const known = Object.fromEntries(Object.entries(axes).map(([name, axis]) => [name, new Axis(titles[name] ?? name, axis)]));
    const families = new Map();
    for (const map of maps) {
        const name = `${map.kind} ${map.stack}`;
        if (!families.has(name)) {
            families.set(name, new Family(map.kind, map.stack, known[map.query_axis], known[map.key_axis]));
        }
        families.get(name).maps.set(map.layer, map);
    }
    return [...families.keys()].sort().map((name) => families.get(name));
}

/** Reads weights, little-endian as they are stored: float32 as it is, integers as a share of their type's largest. */
function decode({ weights, encoding }) {
    const bytes = Uint8Array.from(atob(weights), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const [width, read] = {
        float32: [4, (at) => view.getFloat32(at, true)],
        uint16: [2, (at) => view.getUint16(at, true) / 0xffff],
        uint8: [1, (at) => view.getUint8(at) / 0xff],
    }[encoding];
    return Float32Array.from({ length: bytes.length / width }, (_, index) => read(width * index));
}
