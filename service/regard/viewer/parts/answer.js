// An answer: its parts put together, each of which observes the same view.

const TASKS = {
    translation: "Translation",
    caption: "Caption",
    classification: "Classification",
    token_classification: "Token classification",
    answered_question: "Answered question",
    similarity: "Comparison",
    transcription: "Transcription",
    completion: "Completion",
};

/** Returns the element that shows one answer, the view of it, and a function that draws it anew. */
function showAnswer(answer) {
    const view = new View(familiesOf(answer));
    const loaded = answer.picture && loadPicture(answer.picture);
    const stage = element("div", { className: "stage" });
    const choices = choicesOf(view, set);
    const root = element(
        "article",
        {},
        element("header", {}, element("h2", {}, TASKS[answer.task], answer.part ?? ""), choices.root),
        stage,
        provenance(answer),
    );
    set();
    return { root, view, redraw: () => view.redraw() };

    function set() {
        view.release();
        view.observe(() => choices.draw());
        const { grid, frames } = view.family.keys;
        stage.replaceChildren(
            ...foundIn(answer),
            grid ? sightOf(view, answer, loaded) : element("div", {}, frames ? soundOf(view) : textsOf(view), readingOf(view)),
            ...(grid ? [] : classesOf(answer)),
            ...(grid || frames ? [] : [mapOf(view)]),
            headsOf(view),
        );
    }
}

function textsOf(view) {
    const { queries, keys } = view.family;
    if (queries === keys) return observing(view, new Words(view, keys, "both", keys.title)).root;
    const above = observing(view, new Words(view, keys, "key", keys.title));
    const below = observing(view, new Words(view, queries, "query", queries.title));
    const pair = element("div", { className: "pair" }, above.root, below.root);
    observing(view, new Links(view, pair, above, below));
    return pair;
}

function soundOf(view) {
    const { queries, keys } = view.family;
    const parts = [observing(view, new Timeline(view, keys)).root];
    if (!queries.frames) parts.push(observing(view, new Words(view, queries, "query", queries.title)).root);
    return element("div", { className: "heard" }, ...parts);
}

function sightOf(view, answer, loaded) {
    const { queries, keys } = view.family;
    const picture = observing(view, new Picture(view, keys, answer, loaded)).root;
    const beside = element("div", { className: "beside" });
    const outside = () => observing(view, new Words(view, keys, queries === keys ? "both" : "key", "Not in the image")).root;
    if (queries !== keys) {
        const title = queries.grid ? "Not in the image" : queries.title;
        beside.append(observing(view, new Words(view, queries, "query", title)).root);
    }
    if (keys.words.length) beside.append(outside());
    beside.append(readingOf(view), ...classesOf(answer));
    if (!queries.grid) beside.append(observing(view, new Strip(view, answer, loaded)).root);
    return element("div", { className: "sight" }, picture, beside);
}

function classesOf(answer) {
    if (answer.task === "similarity") return [bars("Texts", answer.classes)];
    return answer.task === "classification" ? [classBars(answer)] : [];
}

/** What was found in a text: its entities, or the answers to a question about it. */
function foundIn(answer) {
    if (answer.task === "token_classification") return answer.marked ? [markedText("Entities", answer.marked)] : [];
    if (answer.task !== "answered_question") return [];
    return [answerBars(answer), ...(answer.marked ? [markedText("Context", answer.marked)] : [])];
}

function mapOf(view) {
    const { queries, keys } = view.family;
    const title = queries === keys ? `${keys.title}, in rows, attends to itself, in columns` : `${queries.title}, in rows, attends to ${keys.title.toLowerCase()}, in columns`;
    const matrix = observing(view, new Matrix(view, title));
    return element("section", { className: "map" }, element("h3", {}, title), matrix.root, legendOf(view));
}

function headsOf(view) {
    const heads = observing(view, new Heads(view));
    const scale = "Each from 0 to its own largest weight.";
    return element("section", { className: "multiples" }, element("h3", {}, "Every layer and head"), heads.root, element("p", { className: "note" }, scale));
}

function legendOf(view) {
    const canvas = element("canvas", { width: SHADES, height: 1 });
    const most = element("span");
    view.observe(() => {
        paintTiny(canvas, Array.from({ length: SHADES }, (_, index) => index), SHADES, 1, SHADES - 1);
        most.textContent = figure(view.plane.most);
    });
    return element("p", { className: "legend" }, element("span", {}, "0"), canvas, most);
}

/** A line that says in words what is looked at, also to those who don't see it. */
function readingOf(view) {
    const line = element("p", { className: "reading", "aria-live": "polite" });
    view.observe(() => line.replaceChildren(...readingParts(view)));
    return line;
}

function readingParts({ look, plane, family: { queries, keys } }) {
    const name = (axis, index) => element("bdi", {}, axis.nameOf(index));
    if (look.query !== null && look.key !== null) {
        return [name(queries, look.query), " attends to ", name(keys, look.key), " ", value(plane.at(look.query, look.key))];
    }
    if (look.query !== null) return [name(queries, look.query), " attends to ", ...largest(plane.row(look.query), keys, name)];
    if (look.key !== null) return [name(keys, look.key), " is attended to by ", ...largest(plane.column(look.key), queries, name)];
    return ["Point at a word, or at a cell of the map."];
}

function largest(weights, axis, name) {
    const order = axis.places.toSorted((one, other) => weights[other] - weights[one]);
    return order.slice(0, 3).flatMap((index, place) => [place ? ", " : "", name(axis, index), " ", value(weights[index])]);
}

function value(weight) {
    return element("span", { className: "value" }, figure(weight));
}

/** Selects for the family, the layer and the head. */
function choicesOf(view, set) {
    const select = (name, onchange) => element("select", { "aria-label": name, onchange });
    const family = select("Attention", () => { view.chooseFamily(view.families[family.value]); set(); });
    const layer = select("Layer", () => view.choose(Number(layer.value), view.head));
    const head = select("Head", () => view.choose(view.layer, head.value === MEAN ? MEAN : Number(head.value)));
    view.families.forEach((one, index) => family.append(element("option", { value: index }, one.name)));
    const draw = () => {
        const shown = view.family;
        family.value = view.families.indexOf(shown);
        layer.replaceChildren(...shown.layers.map((one) => element("option", { value: one }, `layer ${one}`)));
        head.replaceChildren(...shown.headsOf(view.layer).map((one) => element("option", { value: one }, shown.headName(view.layer, one))));
        [layer.value, head.value] = [view.layer, view.head];
    };
    return { root: element("div", { className: "choices" }, family, layer, head), draw };
}

function provenance(answer) {
    const [{ encoding }] = answer.maps;
    const error = Math.max(...answer.maps.map((map) => map.error));
    const facts = [
        ["Model", answer.model ?? "unknown"],
        ["Precision", answer.precision],
        ["Package", answer.package_sha256],
        ["Granularity", answer.granularity],
        ["Stored as", error ? `${encoding}, within ${error.toExponential(1)} of what was served` : `${encoding}, as it was served`],
    ];
    if (answer.truncated) facts.push(["Cut", "the input was longer than the model reads; its end is missing here"]);
    return element("footer", {}, element("dl", {}, ...facts.map(([name, fact]) => element("div", {}, element("dt", {}, name), element("dd", {}, fact)))));
}

function observing(view, part) {
    view.observe(() => part.draw());
    return part;
}
