// Marks: a text in which parts are marked.

/** Shows a text with its spans marked, each with its label and score; where spans overlap the first is. */
function markedText(title, { text, spans }) {
    const characters = [...text];
    const part = (start, end) => characters.slice(start, end).join("");
    const line = element("p", { dir: "auto" });
    let end = 0;
    for (const span of spans.toSorted((one, other) => one.start - other.start)) {
        if (span.start < end) continue;
        line.append(part(end, span.start), marked(part(span.start, span.end), span));
        end = span.end;
    }
    line.append(part(end));
    const section = element("section", { className: "marks" }, element("h3", {}, title), line);
    if (!spans.length) section.append(element("p", { className: "note" }, "Nothing was found in it."));
    return section;
}

function marked(text, { label, score }) {
    const small = label ? [element("small", {}, element("bdi", {}, label), ` ${percent(score)}`)] : [];
    return element("mark", {}, text, ...small);
}
