// Links: curves between the words of two texts, as strong as the weights between them.

const FAINTEST = 0.005;

/** Draws curves from the look's word to the words on the other side of `pair`. */
class Links {
    constructor(view, pair, keys, queries) {
        this.view = view;
        this.pair = pair;
        this.keys = keys;
        this.queries = queries;
        this.drawing = shape("svg", { class: "links", "aria-hidden": "true" });
        pair.prepend(this.drawing);
        new ResizeObserver(() => this.draw()).observe(pair);
    }

    draw() {
        const { look, plane } = this.view;
        this.drawing.replaceChildren();
        if (look.query !== null) this.#link(plane.row(look.query), (key) => [key, look.query]);
        else if (look.key !== null) this.#link(plane.column(look.key), (query) => [look.key, query]);
    }

    #link(weights, endsOf) {
        const frame = this.pair.getBoundingClientRect();
        weights.forEach((weight, index) => {
            if (weight < FAINTEST) return;
            const [key, query] = endsOf(index);
            const from = this.keys.buttons.get(key).getBoundingClientRect();
            const to = this.queries.buttons.get(query).getBoundingClientRect();
            const [x1, y1] = [from.left + from.width / 2 - frame.left, from.bottom - frame.top];
            const [x2, y2] = [to.left + to.width / 2 - frame.left, to.top - frame.top];
            const bend = Math.max((y2 - y1) / 2, 16);
            this.drawing.append(
                shape("path", {
                    d: `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}`,
                    "stroke-width": 0.75 + 5 * weight,
                    "stroke-opacity": Math.min(0.15 + weight, 0.9),
                }),
            );
        });
    }
}
