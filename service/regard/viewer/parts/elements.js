// Elements: how they are made, and how arrow keys walk among them.

/** Makes an element. What its class knows is set as a property, the rest (role, aria-…) as an attribute. */
function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
        if (name in made) made[name] = value;
        else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
}

/** Makes an element of an SVG drawing. */
function shape(tag, attributes = {}) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
}

/**
 * Makes one Tab stop of `items`: arrow keys, Home and End walk among them. `columns` is the length of
 * a row, 1 for a list that runs on; a list in a text of the other direction is walked the other way.
 */
function walkable(container, items, { columns = 1, rightToLeft = false } = {}) {
    const makeStop = (stop) => items.forEach((item) => { item.tabIndex = item === stop ? 0 : -1; });
    const [back, on] = rightToLeft ? ["ArrowRight", "ArrowLeft"] : ["ArrowLeft", "ArrowRight"];
    const steps = { [back]: -1, [on]: 1, ArrowUp: -columns, ArrowDown: columns, Home: -Infinity, End: Infinity };
    container.addEventListener("focusin", (event) => {
        const item = items.find((one) => one.contains(event.target));
        if (item) makeStop(item);
    });
    container.addEventListener("keydown", (event) => {
        const from = items.indexOf(document.activeElement);
        if (from < 0 || !(event.key in steps)) return;
        event.preventDefault();
        const to = Math.min(Math.max(from + steps[event.key], 0), items.length - 1);
        items[to].focus();
    });
    makeStop(items.find((item) => item.matches("[aria-current=true], [aria-pressed=true]")) ?? items[0]);
    return makeStop;
}

/** Sizes a canvas in pixels of the page and returns its context, scaled to the pixels of the screen. */
function drawable(canvas, width, height) {
    const density = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.setTransform(canvas.width / width, 0, 0, canvas.height / height, 0, 0);
    return context;
}

function setPixel({ data }, index, color, opacity) {
    data[4 * index] = color[0];
    data[4 * index + 1] = color[1];
    data[4 * index + 2] = color[2];
    data[4 * index + 3] = opacity;
}

/** Writes a weight with three decimals, as everywhere on the page. */
function figure(weight) {
    return weight.toFixed(3);
}
