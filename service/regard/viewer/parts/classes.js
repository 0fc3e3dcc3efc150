// Classes: the likeliest as bars.

/** Shows the classes of a classification with their probabilities, and says if it is outside all of them. */
function classBars({ classes, out_of_scope: outOfScope }) {
    const rows = classes.map(({ label, probability }) => {
        const bar = element("span", { className: "bar" });
        bar.style.width = `${100 * probability}%`;
        return element(
            "li",
            {},
            element("bdi", { className: "class-name" }, label),
            element("span", { className: "probability" }, `${(100 * probability).toFixed(1)} %`),
            element("span", { className: "track", "aria-hidden": "true" }, bar),
        );
    });
    const section = element("section", { className: "classes" }, element("h3", {}, "Classes"), element("ol", {}, ...rows));
    if (outOfScope) section.append(element("p", { className: "scope" }, "Out of scope: the model takes this for none of its classes."));
    return section;
}
