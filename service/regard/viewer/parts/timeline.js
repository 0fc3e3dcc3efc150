// The timeline: a sound, and how much of it each moment has of what is looked at.

const TIMELINE_HEIGHT = 96;
const LEAST_BETWEEN_TICKS = 56; // pixels
const TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10];

/** Shows the weights of the look's query over the frames that were heard, or of all queries where none is looked at. */
class Timeline {
    constructor(view, axis) {
        this.view = view;
        this.axis = axis;
        this.canvas = element("canvas");
        this.cursor = element("div", { className: "cursor" });
        this.ticks = element("div", { className: "ticks", "aria-hidden": "true" });
        this.field = element(
            "div",
            {
                className: "timeline",
                tabIndex: 0,
                role: "application",
                "aria-roledescription": "timeline",
                "aria-label": `${axis.title}: ${axis.heard} frames; arrow keys move, Enter pins`,
                onpointermove: (event) => this.#point(this.#frameAt(event)),
                onpointerleave: () => view.point(null),
                onclick: (event) => view.pin({ query: view.pinned.query, key: this.#frameAt(event) }),
                onfocus: () => this.field.matches(":focus-visible") && this.#point(view.look.key ?? 0),
                onblur: () => view.point(null),
                onkeydown: (event) => this.#walk(event),
            },
            this.canvas,
            this.cursor,
        );
        this.root = element("section", {}, element("h3", {}, axis.title), this.field, this.ticks);
        new ResizeObserver(() => this.#layOut()).observe(this.field);
    }

    draw() {
        const { clientWidth: width } = this.field;
        const { heard } = this.axis;
        if (!width || !heard) return;
        const { look, plane } = this.view;
        const columns = pooled(look.query === null ? meanRow(plane) : plane.row(look.query), heard, Math.min(heard, width));
        const most = Math.max(...columns) || 1;
        const context = drawable(this.canvas, width, TIMELINE_HEIGHT);
        columns.forEach((weight, column) => {
            const [from, to] = [column, column + 1].map((edge) => (edge * width) / columns.length);
            const high = Math.max(1, (weight / most) * TIMELINE_HEIGHT);
            context.fillStyle = css(shade(0.25 + (0.75 * weight) / most));
            context.fillRect(from, TIMELINE_HEIGHT - high, Math.max(1, to - from), high);
        });
        this.cursor.hidden = look.key === null || look.key >= heard;
        this.cursor.style.left = `${(100 * (look.key + 0.5)) / heard}%`;
    }

    #layOut() {
        const { axis: { heard, frames }, field } = this;
        const whole = heard * frames.seconds;
        const between = TICKS.find((step) => (step / whole) * field.clientWidth >= LEAST_BETWEEN_TICKS) ?? TICKS.at(-1);
        const times = Array.from({ length: Math.floor(whole / between) + 1 }, (_, index) => index * between);
        this.ticks.replaceChildren(...times.map((time) => {
            const tick = element("span", {}, `${Number((frames.start + time).toFixed(1))} s`);
            tick.style.left = `${(100 * time) / whole}%`;
            return tick;
        }));
        this.draw();
    }

    #point(key) {
        this.view.point({ query: this.view.pinned.query, key });
    }

    #frameAt({ clientX }) {
        const { left, width } = this.field.getBoundingClientRect();
        const share = (clientX - left) / width;
        return Math.min(Math.max(Math.floor(share * this.axis.heard), 0), this.axis.heard - 1);
    }

    #walk(event) {
        const key = this.view.look.key ?? 0;
        const to = { ArrowLeft: key - 1, ArrowRight: key + 1, PageUp: key - 25, PageDown: key + 25, Home: 0, End: this.axis.heard - 1 }[event.key];
        if (event.key === "Escape") this.view.unpin();
        else if (event.key === "Enter") this.view.pin({ query: this.view.pinned.query, key });
        else if (to !== undefined) this.#point(Math.min(Math.max(to, 0), this.axis.heard - 1));
        else return;
        event.preventDefault();
    }
}

/** Returns `columns` columns of a row's first `count` weights: of each, the largest weight. */
function pooled(row, count, columns) {
    return Array.from({ length: columns }, (_, column) => {
        const [from, to] = [column, column + 1].map((edge) => Math.floor((edge * count) / columns));
        return row.subarray(from, Math.max(to, from + 1)).reduce((most, weight) => Math.max(most, weight), 0);
    });
}

function meanRow(plane) {
    const mean = new Float32Array(plane.keys);
    plane.values.forEach((weight, index) => { mean[index % plane.keys] += weight / plane.queries; });
    return mean;
}
