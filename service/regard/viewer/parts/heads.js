// Small multiples: every head of every layer as a tiny map, to compare and to choose.

const TINY_COLUMNS = 72;

/** A grid of tiny maps: a row for each layer, a column for each head. Over an image each shows the look's query. */
class Heads {
    constructor(view) {
        this.view = view;
        const { family } = view;
        const columns = Math.max(...family.layers.map((layer) => family.headsOf(layer).length));
        this.tiles = family.layers.flatMap((layer) => family.headsOf(layer).map((head) => this.#tile(layer, head)));
        const rows = family.layers.map((layer) =>
            element("div", { className: "layer" }, element("span", { className: "layer-name" }, `layer ${layer}`), ...this.tiles.filter((tile) => tile.layer === layer).map((tile) => tile.button)),
        );
        const grid = element("div", { className: "heads", role: "group", "aria-label": "Every layer and head" }, ...rows);
        walkable(grid, this.tiles.map((tile) => tile.button), { columns });
        this.root = element("div", { className: "scroll" }, grid);
    }

    draw() {
        const { family, layer, head, look } = this.view;
        const painted = `${isDark()} ${family.keys.grid && look.query}`;
        for (const tile of this.tiles) {
            if (painted !== this.painted) this.#paint(tile.canvas, family.plane(tile.layer, tile.head));
            tile.button.setAttribute("aria-pressed", tile.layer === layer && tile.head === head);
        }
        this.painted = painted;
    }

    #paint(canvas, plane) {
        const { family: { keys }, look } = this.view;
        if (keys.frames && keys.heard) {
            const columns = Math.min(keys.heard, TINY_COLUMNS);
            const rows = Array.from({ length: plane.queries }, (_, query) => pooled(plane.row(query), keys.heard, columns));
            paintTiny(canvas, rows.flat(), columns, plane.queries, Math.max(...rows.flat()));
            return;
        }
        if (!keys.grid) {
            paintTiny(canvas, plane.values, plane.keys, plane.queries, plane.most);
            return;
        }
        const weights = keys.patches.map((index) => (look.query === null ? 0 : plane.at(look.query, index)));
        paintTiny(canvas, weights, keys.grid.columns, keys.grid.rows, Math.max(...weights));
    }

    #tile(layer, head) {
        const canvas = element("canvas");
        const { grid } = this.view.family.keys;
        if (grid) canvas.style.aspectRatio = `${grid.columns} / ${grid.rows}`;
        const name = this.view.family.headName(layer, head);
        const button = element(
            "button",
            { type: "button", className: "head", "aria-label": `layer ${layer}, ${name}`, onclick: () => this.view.choose(layer, head) },
            canvas,
            element("span", {}, name.replace("head ", "").replace(" of heads", "")),
        );
        return { layer, head, canvas, button };
    }
}

/** Paints one pixel a weight; the style sheet scales it up without smoothing. */
function paintTiny(canvas, weights, columns, rows, most) {
    canvas.width = columns;
    canvas.height = rows;
    const pixels = new ImageData(columns, rows);
    const ramp = rampOf(isDark());
    for (let index = 0; index < weights.length; index++) {
        setPixel(pixels, index, shade(weights[index] / (most || 1), ramp), 255);
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
}
