// The playground: what the form asks, what comes back while it comes, and the whole answer.

const limits = JSON.parse(document.getElementById("document").textContent);
const target = `${location.hostname || "localhost"}:${limits.grpc_port}`;
const live = document.querySelector(".live");
const shown = document.querySelector(".shown");
const run = document.querySelector(".run");
let form = null;
let running = null;
let drawn = null;

/** Asks, and shows tokens as they come and then the answer; asking again stops what runs. */
async function answer() {
    if (!form) return;
    const { order } = form;
    if (!order) {
        form.refuse(form.missing);
        return;
    }
    form.clear();
    running?.abort();
    const own = (running = new AbortController());
    const tokens = live.querySelector("p");
    tokens.replaceChildren();
    live.querySelector(".facts").textContent = "";
    live.hidden = !order.asked.streams;
    if (form.task === "completion") tokens.append(element("span", { className: "prompt" }, order.given.text));
    shown.classList.add("stale");
    if (shown.getBoundingClientRect().top > 0.8 * innerHeight) document.querySelector("main").scrollIntoView();
    run.textContent = "Stop";
    try {
        await follow(order, own.signal, tokens);
    } catch (error) {
        if (error.name !== "AbortError") form.refuse(error);
        live.hidden = live.hidden || !tokens.querySelector(".token");
    } finally {
        if (running === own) {
            running = null;
            run.textContent = form.asked.name;
            shown.classList.remove("stale");
        }
    }
}

async function follow(order, signal, tokens) {
    const { model } = form;
    const task = form.task;
    const coming = new Live(task, model, order.given);
    let before = null;
    const pace = new Pace(() => { before = showComing(coming, before); });
    try {
        for await (const event of ask(order.asked.path, order.request, signal)) {
            if (event.delta) {
                tokens.append(tokenOf(event.delta));
                coming.add(event.delta);
                pace.draw();
                continue;
            }
            const result = order.asked.resultOf(event, order.given);
            live.querySelector(".facts").textContent = factsOf(result);
            live.hidden = false;
            show(task, result, event.model ?? model, order.given, before);
        }
    } catch (error) {
        if (error.name !== "AbortError") showComing(coming, before);
        throw error;
    } finally {
        pace.stop();
    }
}

function tokenOf({ text, log_probability: logProbability }) {
    const token = element("span", { className: "token", title: `${(100 * Math.exp(logProbability)).toFixed(1)} %` }, text);
    token.style.setProperty("--sure", Math.exp(logProbability).toFixed(3));
    return token;
}

function factsOf({ text, target_tokens: tokens, source_tokens: source, prompt_tokens: prompt, timing, finish_reason: reason }) {
    const read = source ?? prompt;
    const seconds = timing.queue_s + timing.encode_s + timing.decode_s;
    const facts = [];
    if (read) facts.push(`${read} tokens read`);
    if (tokens) facts.push(`${tokens} written`);
    if (tokens) facts.push(text ? "underlined where unsure" : "an empty output");
    facts.push(`${(1000 * seconds).toFixed(seconds < 0.1 ? 1 : 0)} ms`);
    if (reason === "FINISH_REASON_LENGTH") facts.push("cut at the most tokens");
    return facts.join(" · ");
}

function show(task, result, model, given, before) {
    const parts = task === "transcription" ? result.windows : [result];
    const answers = parts.map((part) => ({ ...answerOf(task, part, model, given), part: parts.length > 1 ? spanOf(part) : "" }));
    const articles = answers.map((part) => (part.maps.length ? showAnswer(part) : { root: plain(part), redraw() {} }));
    const refocus = focusIn(shown);
    shown.replaceChildren(...articles.map(({ root }) => root));
    drawn = { view: articles[0]?.view, redraw: () => articles.forEach((article) => article.redraw()) };
    drawn.redraw();
    if (drawn.view && before) drawn.view.chooseAs(before.view);
    refocus();
}

function spanOf({ start_s: start, end_s: end }) {
    return ` from ${start.toFixed(1)} to ${end.toFixed(1)} s`;
}

/** Shows what has come so far, with what the last token looked at; to whoever has taken hold of it, what there was `before`. */
function showComing(coming, before) {
    const part = coming.answer;
    if (!part || (before && shown.contains(document.activeElement))) return before;
    drawn = showAnswer(part);
    shown.classList.remove("stale");
    shown.replaceChildren(drawn.root);
    if (before) drawn.view.chooseAs(before.view);
    drawn.view.point({ query: part.axes.target.segments.length - 1 });
    return drawn;
}

/** Returns what gives the focus back to the element in the same place of `root`, once it has other children. */
function focusIn(root) {
    const held = root.contains(document.activeElement) ? document.activeElement : null;
    const group = (one) => one.closest("[role=group]")?.getAttribute("aria-label");
    const alike = () => [...root.querySelectorAll(held.localName)].filter((one) => one.getAttribute("role") === held.getAttribute("role") && group(one) === group(held));
    const place = held && alike().indexOf(held);
    return () => held && alike()[place]?.focus({ preventScroll: true });
}

/** What is shown of a model that gives no attention. */
function plain(answer) {
    const note = element("p", { className: "note" }, "This model’s package gives no attention.");
    return element("article", {}, ...foundIn(answer), ...classesOf(answer), note);
}

function addCopies(section) {
    const ways = { grpcurl: asGrpcurl, Python: asPython };
    const code = section.querySelector("code");
    let chosen = "grpcurl";
    const buttons = Object.keys(ways).map((name) =>
        element("button", { type: "button", onclick: () => { chosen = name; draw(); } }, name),
    );
    const copy = element("button", { type: "button", className: "take" }, "Copy");
    copy.addEventListener("click", async () => {
        await copyText(code);
        copy.textContent = "Copied";
        setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
    section.querySelector(".ways").append(element("span", { className: "name" }, "Ask the same with"), ...buttons, copy);

    function draw() {
        const { order } = form;
        section.hidden = !order;
        for (const button of buttons) button.setAttribute("aria-pressed", button.textContent === chosen);
        code.textContent = order ? ways[chosen](order, target) : "";
    }
    return draw;
}

/** Copies an element's text; where the page may not (it isn't secure), the text is selected to be copied by hand. */
async function copyText(shownText) {
    getSelection().selectAllChildren(shownText);
    await navigator.clipboard?.writeText(shownText.textContent).catch(() => {});
}

async function begin() {
    const root = document.querySelector(".composer");
    addThemes(document.querySelector(".theme"), () => drawn?.redraw());
    let drawCopies = () => {};
    const changed = () => {
        if (!form) return;
        if (!running) run.textContent = form.asked.name;
        drawCopies();
    };
    root.addEventListener("submit", (event) => {
        event.preventDefault();
        answer();
    });
    run.addEventListener("click", (event) => {
        if (!running) return;
        event.preventDefault();
        running.abort();
    });
    root.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) root.requestSubmit();
    });
    document.querySelector(".skip").addEventListener("click", (event) => {
        event.preventDefault();
        document.querySelector("main").focus();
    });
    try {
        for await (const { models } of ask("regard.v1.ModelService/ListModels", {}, null)) form = new Form(root, models, limits, changed);
    } catch (error) {
        const problem = root.querySelector(".problem");
        problem.textContent = error.message;
        problem.hidden = false;
        run.disabled = true;
        return;
    }
    if (!form.models.length) {
        form.refuse({ message: "This server holds no model that this page can ask." });
        run.disabled = true;
        form = null;
        return;
    }
    drawCopies = addCopies(document.querySelector(".copy"));
    changed();
}

begin();
