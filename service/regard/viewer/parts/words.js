// Words: a text whose words can be looked at, each shaded by the weight that it has in the look.

const LONG = 40;

const ROLES = {
    query: { look: (index) => ({ query: index }), weights: (plane, look) => look.key !== null && plane.column(look.key) },
    key: { look: (index) => ({ key: index }), weights: (plane, look) => look.query !== null && plane.row(look.query) },
    both: { look: (index) => ({ query: index }), weights: (plane, look) => look.query !== null && plane.row(look.query) },
};

/** Shows the words of an axis in a role: `query`, `key`, or `both` where a text attends to itself. */
class Words {
    constructor(view, axis, role, title) {
        this.view = view;
        this.axis = axis;
        this.role = ROLES[role];
        this.isMarked = (look, index) => index === (role === "key" ? look.key : look.query);
        this.buttons = new Map(axis.words.map((index) => [index, this.#button(index)]));
        const line = element("p", { role: "group", "aria-label": title });
        for (const [index, button] of this.buttons) line.append(axis.segments[index].spaced ? " " : "\u2060", button);
        line.addEventListener("keydown", (event) => event.key === "Escape" && view.unpin());
        walkable(line, [...this.buttons.values()], { rightToLeft: axis.direction === "rtl" });
        const size = axis.words.length > LONG ? "words long" : "words";
        this.root = element("section", { className: size, dir: axis.direction }, element("h3", {}, title), line);
    }

    draw() {
        const { look, plane, pinned } = this.view;
        const weights = this.role.weights(plane, look) || null;
        const most = weights && this.#scale(weights);
        for (const [index, button] of this.buttons) {
            const [word, small] = button.children;
            const color = weights && !this.axis.isSpecial(index) && shade(weights[index] / most);
            word.style.backgroundColor = color ? css(color) : "";
            word.style.color = color ? inkOn(color) : "";
            small.textContent = weights ? figure(weights[index]) : "";
            button.classList.toggle("marked", this.isMarked(look, index));
            button.setAttribute("aria-pressed", this.isMarked(pinned, index));
        }
    }

    /** Shades reach from 0 to the largest weight of a word; special tokens, often far above, bear their figure alone. */
    #scale(weights) {
        const words = this.axis.words.filter((index) => !this.axis.isSpecial(index));
        return words.reduce((most, index) => Math.max(most, weights[index]), 0) || 1;
    }

    #button(index) {
        const { text, special } = this.axis.segments[index];
        const look = this.role.look(index);
        return element(
            "button",
            {
                type: "button",
                className: special ? "word special" : "word",
                onpointerenter: () => this.view.point(look),
                onpointerleave: () => this.view.point(null),
                onfocus: () => this.view.point(look),
                onblur: () => this.view.point(null),
                onclick: () => this.view.pin(look),
            },
            element("bdi", {}, text),
            element("small"),
        );
    }
}
