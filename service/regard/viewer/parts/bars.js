// Bars: what an answer chooses among, with how sure it is of each.

/** Shows the classes of a classification with their probabilities, and says if it is outside all of them. */
function classBars({ classes, out_of_scope: outOfScope }) {
    const section = bars("Classes", classes);
    if (outOfScope) section.append(element("p", { className: "scope" }, "Out of scope: the model takes this for none of its classes."));
    return section;
}

/** Shows the answers to a question with their scores; one of no text says that there is none. */
function answerBars({ classes }) {
    const section = bars("Answers", classes.map(({ label, probability }) => ({ label: label || "no answer", probability })));
    if (!classes.length) section.append(element("p", { className: "scope" }, "No part of the context can be the answer."));
    return section;
}

function bars(title, choices) {
    const rows = choices.map(({ label, probability }) => {
        const bar = element("span", { className: "bar" });
        bar.style.width = `${100 * probability}%`;
        return element(
            "li",
            {},
            element("bdi", { className: "class-name" }, label),
            element("span", { className: "probability" }, percent(probability)),
            element("span", { className: "track", "aria-hidden": "true" }, bar),
        );
    });
    return element("section", { className: "classes" }, element("h3", {}, title), element("ol", {}, ...rows));
}

function percent(probability) {
    return `${(100 * probability).toFixed(1)} %`;
}
