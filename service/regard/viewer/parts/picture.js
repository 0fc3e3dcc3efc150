// Pictures: an image, and over it a veil that is thinnest where the weight is largest.

const VEIL = [12, 17, 27];
const THICKEST = 0.82;
const LONGEST_SIDE = 520;
const FINE = 16;
const COARSE = 4;

/** Loads an answer's picture once, for all that show it. */
function loadPicture({ uri }) {
    const image = new Image();
    image.src = uri;
    return image.decode().then(() => image);
}

/** Shows an image under the weights that the look's query gives its patches. */
class Picture {
    constructor(view, axis, answer, loaded) {
        this.view = view;
        this.axis = axis;
        this.size = answer.picture;
        const { queries } = view.family;
        this.asking = queries.grid ? queries : null; // patches attend to patches: its own are the queries
        this.smooth = true;
        this.canvas = element("canvas");
        this.frame = element("div", { className: "frame" });
        this.field = element(
            "div",
            {
                className: "picture-field",
                tabIndex: 0,
                role: "application",
                "aria-roledescription": "image with heat map",
                "aria-label": `Image, ${axis.grid.rows} by ${axis.grid.columns} patches; arrow keys move, Enter pins`,
                onpointermove: (event) => view.point(this.#lookAt(this.#patchAt(event))),
                onpointerleave: () => view.point(null),
                onclick: (event) => view.pin(this.#lookAt(this.#patchAt(event))),
                onfocus: () => this.field.matches(":focus-visible") && view.point(this.#lookAt(this.#cursor())),
                onblur: () => view.point(null),
                onkeydown: (event) => this.#walk(event),
            },
            element("img", { src: answer.picture.uri, alt: answer.output ?? "the image that was classified", draggable: false }),
            this.canvas,
            this.frame,
        );
        const { width, height } = displaySize(this.size);
        this.field.style.width = `min(100%, ${width}px)`;
        this.field.style.aspectRatio = `${width} / ${height}`;
        const toggle = element("button", { type: "button", className: "toggle", "aria-pressed": "false" }, "Show patches");
        toggle.addEventListener("click", () => {
            this.smooth = !this.smooth;
            toggle.setAttribute("aria-pressed", !this.smooth);
            this.draw();
        });
        this.scale = element("span");
        this.root = element("figure", { className: "picture" }, this.field, element("figcaption", {}, this.scale, toggle));
        loaded.then(() => this.draw());
    }

    draw() {
        const { look, plane } = this.view;
        const weights = look.query === null ? null : this.axis.patches.map((index) => plane.at(look.query, index));
        const side = Math.max(this.size.width, this.size.height);
        this.canvas.width = Math.max(Math.round((this.size.width / side) * LONGEST_SIDE), 1);
        this.canvas.height = Math.max(Math.round((this.size.height / side) * LONGEST_SIDE), 1);
        if (weights) paintVeil(this.canvas, this.axis.grid, weights, this.smooth, FINE);
        this.scale.textContent = weights ? `Darkest at 0, clear at ${figure(Math.max(...weights))}` : "";
        const patch = this.#patchOf(look);
        this.frame.hidden = patch < 0;
        if (patch >= 0) this.#placeFrame(patch);
    }

    #placeFrame(patch) {
        const { rows, columns, left, top, width, height } = this.axis.grid;
        const [row, column] = [Math.floor(patch / columns), patch % columns];
        this.frame.style.left = `${100 * (left + (column / columns) * width)}%`;
        this.frame.style.top = `${100 * (top + (row / rows) * height)}%`;
        this.frame.style.width = `${(100 * width) / columns}%`;
        this.frame.style.height = `${(100 * height) / rows}%`;
    }

    /** Looks with a patch where patches attend, at a patch where words attend to them. */
    #lookAt(patch) {
        if (patch === null) return null;
        if (this.asking) return { query: this.asking.patches[patch] };
        return { query: this.view.pinned.query, key: this.axis.patches[patch] };
    }

    #patchOf(look) {
        return this.asking ? this.asking.patches.indexOf(look.query) : this.axis.patches.indexOf(look.key);
    }

    #patchAt(event) {
        const box = this.field.getBoundingClientRect();
        const { rows, columns, left, top, width, height } = this.axis.grid;
        const column = Math.floor((((event.clientX - box.left) / box.width - left) / width) * columns);
        const row = Math.floor((((event.clientY - box.top) / box.height - top) / height) * rows);
        return row >= 0 && row < rows && column >= 0 && column < columns ? row * columns + column : null;
    }

    #cursor() {
        return Math.max(this.#patchOf(this.view.look), 0);
    }

    #walk(event) {
        const { rows, columns } = this.axis.grid;
        const patch = this.#cursor();
        const [row, column] = [Math.floor(patch / columns), patch % columns];
        const to = {
            ArrowLeft: [row, column - 1],
            ArrowRight: [row, column + 1],
            ArrowUp: [row - 1, column],
            ArrowDown: [row + 1, column],
        }[event.key];
        if (to) {
            event.preventDefault();
            const [nextRow, nextColumn] = [Math.min(Math.max(to[0], 0), rows - 1), Math.min(Math.max(to[1], 0), columns - 1)];
            this.view.point(this.#lookAt(nextRow * columns + nextColumn));
        } else if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            this.view.pin(this.#lookAt(patch));
        } else if (event.key === "Escape") this.view.unpin();
    }
}

/** A strip of small pictures, one for each word, under the weights of that word. */
class Strip {
    constructor(view, answer, loaded) {
        this.view = view;
        this.loaded = null;
        const { queries } = view.family;
        this.tiles = queries.places.map((index) => this.#tile(queries, index, answer.picture));
        this.root = element("div", { className: "strip", role: "group", "aria-label": "The image, word by word" }, ...this.tiles);
        walkable(this.root, this.tiles);
        loaded.then((image) => {
            this.loaded = image;
            this.draw();
        });
    }

    draw() {
        const { plane, look, pinned } = this.view;
        if (this.loaded && plane !== this.painted) {
            this.painted = plane;
            this.tiles.forEach((tile, query) => this.#paint(tile.firstChild, query));
        }
        this.tiles.forEach((tile, query) => {
            tile.classList.toggle("marked", query === look.query);
            tile.setAttribute("aria-pressed", query === pinned.query);
        });
    }

    #paint(canvas, query) {
        const { plane, family: { keys } } = this.view;
        canvas.getContext("2d").drawImage(this.loaded, 0, 0, canvas.width, canvas.height);
        paintVeil(canvas, keys.grid, keys.patches.map((index) => plane.at(query, index)), true, COARSE);
    }

    #tile(queries, index, picture) {
        const { width, height } = displaySize(picture);
        const canvas = element("canvas", { height: 128, width: Math.max(Math.round((128 * width) / height), 1) });
        const look = { query: index };
        return element(
            "button",
            {
                type: "button",
                className: queries.isSpecial(index) ? "tile special" : "tile",
                onpointerenter: () => this.view.point(look),
                onpointerleave: () => this.view.point(null),
                onfocus: () => this.view.point(look),
                onblur: () => this.view.point(null),
                onclick: () => this.view.pin(look),
            },
            canvas,
            element("bdi", {}, queries.segments[index].text),
        );
    }
}

/** Returns the size to show an image at; one that is more than six times as long as wide is shown wider than it is. */
function displaySize({ width, height }) {
    const ratio = Math.min(Math.max(width / height, 1 / 6), 6);
    return ratio > 1 ? { width: LONGEST_SIDE, height: LONGEST_SIDE / ratio } : { width: LONGEST_SIDE * ratio, height: LONGEST_SIDE };
}

/**
 * Veils what lies in a canvas: not at all at the largest weight, most at 0 and where the model doesn't
 * look. The veil is sampled `samples` times a patch each way, and scaled to the canvas.
 */
function paintVeil(canvas, grid, weights, smooth, samples) {
    const most = Math.max(...weights) || 1;
    const sample = smooth ? bilinear(weights, grid) : nearest(weights, grid);
    const veil = new OffscreenCanvas(grid.columns * samples, grid.rows * samples);
    const pixels = new ImageData(veil.width, veil.height);
    for (let y = 0; y < veil.height; y++) {
        for (let x = 0; x < veil.width; x++) {
            const share = sample((x + 0.5) / samples, (y + 0.5) / samples) / most;
            setPixel(pixels, y * veil.width + x, VEIL, 255 * THICKEST * (1 - share));
        }
    }
    veil.getContext("2d").putImageData(pixels, 0, 0);
    const context = canvas.getContext("2d");
    const [left, top] = [grid.left * canvas.width, grid.top * canvas.height];
    const [width, height] = [grid.width * canvas.width, grid.height * canvas.height];
    context.imageSmoothingEnabled = smooth;
    context.drawImage(veil, left, top, width, height);
    const outside = new Path2D();
    outside.rect(0, 0, canvas.width, canvas.height);
    outside.rect(left, top, width, height);
    context.fillStyle = `rgb(${VEIL.join(" ")} / ${THICKEST})`;
    context.fill(outside, "evenodd");
}

function nearest(weights, { columns }) {
    return (x, y) => weights[Math.floor(y) * columns + Math.floor(x)];
}

/** Interpolates between the centres of patches; beyond the outermost centres their weights hold. */
function bilinear(weights, { rows, columns }) {
    const at = (row, column) => weights[Math.min(Math.max(row, 0), rows - 1) * columns + Math.min(Math.max(column, 0), columns - 1)];
    return (x, y) => {
        const [column, row] = [Math.floor(x - 0.5), Math.floor(y - 0.5)];
        const [across, down] = [x - 0.5 - column, y - 0.5 - row];
        const above = mix(at(row, column), at(row, column + 1), across);
        return mix(above, mix(at(row + 1, column), at(row + 1, column + 1), across), down);
    };
}
