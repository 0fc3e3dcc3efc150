// The map: one row for each query, one column for each key, one cell for each weight.

const SLANT = Math.SQRT1_2;
const LEAST_FIGURE = 0.05;
const MOST_PIXELS = 2 ** 26; // of a canvas; beyond what a browser holds nothing is drawn, and nothing said

/** A heat map of the plane that the view shows, with the look's row and column framed. */
class Matrix {
    constructor(view, title) {
        this.view = view;
        const { queries, keys } = view.family;
        this.canvas = element("canvas");
        this.rowFrame = element("div", { className: "frame" });
        this.columnFrame = element("div", { className: "frame" });
        this.field = element(
            "div",
            {
                className: "field",
                tabIndex: 0,
                role: "application",
                "aria-roledescription": "heat map",
                "aria-label": `${title}: ${queries.segments.length} rows, ${keys.segments.length} columns; arrow keys move, Enter pins`,
                onpointermove: (event) => view.point(this.#cellAt(event)),
                onpointerleave: () => view.point(null),
                onclick: (event) => view.pin(this.#cellAt(event)),
                onfocus: () => this.field.matches(":focus-visible") && view.point(this.#cursor()),
                onblur: () => view.point(null),
                onkeydown: (event) => this.#walk(event),
            },
            this.canvas,
            this.rowFrame,
            this.columnFrame,
        );
        this.rowLabels = queries.places.map((index) => this.#label(queries, index, { query: index }));
        this.columnLabels = keys.places.map((index) => this.#label(keys, index, { key: index }));
        this.header = element("div", { className: "columns", "aria-hidden": "true" }, ...this.columnLabels);
        this.margin = element("div", { className: "rows", "aria-hidden": "true" }, ...this.rowLabels);
        const sheet = element("div", { className: "sheet" }, element("div", { className: "corner" }), this.header, this.margin, this.field);
        this.root = element("div", { className: "scroll" }, sheet);
        new ResizeObserver(() => this.#layOut()).observe(this.root);
    }

    draw() {
        if (!this.cellWidth) return;
        const { plane, look } = this.view;
        this.#paint(plane);
        const { cellWidth, cellHeight } = this;
        place(this.rowFrame, look.query, { top: look.query * cellHeight, height: cellHeight, left: 0, width: plane.keys * cellWidth });
        place(this.columnFrame, look.key, { left: look.key * cellWidth, width: cellWidth, top: 0, height: plane.queries * cellHeight });
        this.rowLabels.forEach((label, index) => label.classList.toggle("marked", index === look.query));
        this.columnLabels.forEach((label, index) => label.classList.toggle("marked", index === look.key));
    }

    #paint(plane) {
        const { cellWidth, cellHeight } = this;
        const painted = `${this.view.layer} ${this.view.head} ${isDark()} ${cellWidth} ${devicePixelRatio}`;
        if (painted === this.painted) return;
        this.painted = painted;
        const [width, height] = [plane.keys * cellWidth, plane.queries * cellHeight];
        if (width * height * devicePixelRatio ** 2 > MOST_PIXELS) {
            paintTiny(this.canvas, plane.values, plane.keys, plane.queries, plane.most);
            [this.canvas.style.width, this.canvas.style.height] = [`${width}px`, `${height}px`];
            return;
        }
        const ramp = rampOf(isDark());
        const context = drawable(this.canvas, width, height);
        const gap = Math.min(cellWidth, cellHeight) > 12 ? 1 : 0;
        context.font = `11px ${getComputedStyle(this.root).fontFamily}`;
        context.textAlign = "center";
        context.textBaseline = "middle";
        for (let query = 0; query < plane.queries; query++) {
            for (let key = 0; key < plane.keys; key++) {
                const weight = plane.at(query, key);
                const color = shade(weight / (plane.most || 1), ramp);
                context.fillStyle = css(color);
                context.fillRect(key * cellWidth, query * cellHeight, cellWidth - gap, cellHeight - gap);
                if (cellWidth < 34 || weight < LEAST_FIGURE) continue;
                context.fillStyle = inkOn(color);
                context.fillText(shortFigure(weight), (key + 0.5) * cellWidth, (query + 0.5) * cellHeight);
            }
        }
    }

    /** Chooses the cells' size for the room that there is, and puts the labels beside them. */
    #layOut() {
        const { queries, keys } = this.view.family;
        const widths = this.columnLabels.map((label) => label.firstChild.scrollWidth);
        const margin = Math.min(Math.max(...this.rowLabels.map((label) => label.firstChild.scrollWidth)), 140) + 14;
        const widest = Math.min(Math.max(...widths), 140);
        const count = keys.segments.length;
        const least = count > 60 ? 14 : 18;
        const room = this.root.clientWidth - margin;
        const level = room / count >= widest + 10;
        const slanted = Math.ceil(widest * SLANT) + 8;
        const share = level ? room / count : (room - slanted + 12) / count;
        this.cellWidth = Math.floor(Math.min(Math.max(share, least), Math.max(level ? widest + 10 : 0, 64)));
        this.cellHeight = queries.segments.length > 60 ? 14 : queries.segments.length > 24 ? 20 : 30;
        this.header.classList.toggle("level", level);
        this.header.style.height = `${level ? 28 : slanted + 10}px`;
        this.header.style.width = `${count * this.cellWidth + (level ? 0 : slanted)}px`;
        this.margin.style.width = `${margin}px`;
        this.root.style.setProperty("--label-size", this.cellHeight < 20 ? "11px" : "13px");
        this.columnLabels.forEach((label, index) => { label.style.left = `${(index + 0.5) * this.cellWidth}px`; });
        this.rowLabels.forEach((label) => { label.style.height = `${this.cellHeight}px`; });
        this.draw();
    }

    #label(axis, index, look) {
        return element(
            "div",
            {
                className: axis.isSpecial(index) ? "label special" : "label",
                onpointerenter: () => this.view.point(look),
                onpointerleave: () => this.view.point(null),
                onclick: () => this.view.pin(look),
            },
            element("bdi", {}, axis.segments[index].text),
        );
    }

    #cellAt(event) {
        const { left, top } = this.field.getBoundingClientRect();
        return this.#cell(Math.floor((event.clientY - top) / this.cellHeight), Math.floor((event.clientX - left) / this.cellWidth));
    }

    #cell(query, key) {
        const { queries, keys } = this.view.plane;
        return { query: Math.min(Math.max(query, 0), queries - 1), key: Math.min(Math.max(key, 0), keys - 1) };
    }

    /** Returns the cell that arrow keys start from: the look's, at its row's largest weight if it is a row. */
    #cursor() {
        const { look, plane } = this.view;
        const query = look.query ?? 0;
        const row = plane.row(query);
        return { query, key: look.key ?? row.indexOf(Math.max(...row)) };
    }

    #walk(event) {
        const { query, key } = this.#cursor();
        const to = {
            ArrowLeft: () => this.#cell(query, key - 1),
            ArrowRight: () => this.#cell(query, key + 1),
            ArrowUp: () => this.#cell(query - 1, key),
            ArrowDown: () => this.#cell(query + 1, key),
            Home: () => this.#cell(query, 0),
            End: () => this.#cell(query, Infinity),
        }[event.key];
        if (to) {
            event.preventDefault();
            this.view.point(to());
            this.columnFrame.scrollIntoView({ block: "nearest", inline: "nearest" });
        } else if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            this.view.pin({ query, key });
        } else if (event.key === "Escape") this.view.unpin();
    }
}

function place(frame, index, box) {
    frame.hidden = index === null;
    if (!frame.hidden) for (const [side, size] of Object.entries(box)) frame.style[side] = `${size}px`;
}

/** Writes a weight in a cell: two decimals without the 0 that each would begin with. */
function shortFigure(weight) {
    return weight >= 0.995 ? "1.0" : weight.toFixed(2).slice(1);
}
