// The view: what is looked at. Everything that draws observes it, everything that is pointed at changes it.

const NOWHERE = Object.freeze({ query: null, key: null });

/**
 * The family, layer and head that are shown, and the element that is looked at: a query (a row of the
 * map), a key (a column) or both (a cell). What is pinned stays; what is pointed at goes before it.
 */
class View {
    #observers = [];
    #pinned = NOWHERE;
    #pointed = null;

    constructor(families) {
        this.families = families;
        this.#start(families[0]);
    }

    get look() {
        return this.#pointed ?? this.#pinned;
    }

    get pinned() {
        return this.#pinned;
    }

    get plane() {
        return this.family.plane(this.layer, this.head);
    }

    /** Calls `draw` now and whenever something changes. */
    observe(draw) {
        this.#observers.push(draw);
        draw();
    }

    /** Forgets all that observes. */
    release() {
        this.#observers = [];
    }

    redraw() {
        for (const draw of this.#observers) draw();
    }

    /** Shows another family: its last layer, the mean of its heads. */
    chooseFamily(family) {
        this.#start(family);
    }

    /** Shows another layer and head of the family; a head that the layer lacks becomes its first choice. */
    choose(layer, head) {
        const heads = this.family.headsOf(layer);
        this.layer = layer;
        this.head = heads.includes(head) ? head : heads[0];
        this.redraw();
    }

    /** Shows the layer and head that another view shows of the same family; nothing changes if there are none such. */
    chooseAs({ family, layer, head }) {
        if (family.name === this.family.name && this.family.layers.includes(layer)) this.choose(layer, head);
    }

    point(look) {
        this.#pointed = look && { ...NOWHERE, ...look };
        this.redraw();
    }

    /** Pins a look, or lets go of it if it is pinned already. */
    pin(look) {
        const next = { ...NOWHERE, ...look };
        const same = next.query === this.#pinned.query && next.key === this.#pinned.key;
        this.#pinned = same ? NOWHERE : next;
        this.#pointed = null;
        this.redraw();
    }

    unpin() {
        this.#pinned = NOWHERE;
        this.#pointed = null;
        this.redraw();
    }

    #start(family) {
        this.family = family;
        this.layer = family.layers.at(-1);
        this.head = family.headsOf(this.layer)[0];
        this.#pointed = null;
        this.#pinned = { ...NOWHERE, query: firstLook(family, this.plane) };
    }
}

/** Returns the query to begin with: the first of self-attention, such as [CLS]; otherwise the one most sure of itself. */
function firstLook({ queries, keys, kind }, plane) {
    const words = queries.places.filter((query) => !queries.isSpecial(query));
    if (kind === "self" || words.length === 0) return 0;
    const peak = (query) => plane.row(query).reduce((most, weight, key) => (keys.isSpecial(key) ? most : Math.max(most, weight)), 0);
    return words.reduce((best, query) => (peak(query) > peak(best) ? query : best));
}
