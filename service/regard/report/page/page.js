// The report: an index of answers, and the one that is shown.

const { answers } = JSON.parse(document.getElementById("document").textContent);
const main = document.querySelector("main");
const index = document.querySelector(".index");
const picker = document.querySelector(".picker");
let shown = null;

/** What an answer is called in the index: its text, or its number where there is nothing to read, as in an empty caption. */
function headline(answer, number) {
    const text = answer.task === "caption" ? answer.output : answer.source ?? answer.classes[0]?.label ?? "Image";
    return text.trim() || `${TASKS[answer.task]} ${number}, empty`;
}

function show() {
    const chosen = Math.min(Math.max(Number(location.hash.slice(1)) || 1, 1), answers.length);
    shown = showAnswer(answers[chosen - 1]);
    main.replaceChildren(shown.root);
    shown.redraw();
    picker.value = chosen;
    for (const link of index.querySelectorAll("a")) {
        if (link.hash === `#${chosen}`) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
    }
}

function fillIndex() {
    const groups = Map.groupBy(answers.map((answer, place) => ({ answer, number: place + 1 })), ({ answer }) => answer.task);
    for (const [task, members] of groups) {
        const name = `${TASKS[task]}s`;
        const links = members.map(({ answer, number }) => element("li", {}, element("a", { href: `#${number}` }, element("bdi", {}, headline(answer, number)))));
        index.append(element("h2", {}, name), element("ol", {}, ...links));
        const chosen = members.map(({ answer, number }) => element("option", { value: number }, headline(answer, number)));
        picker.append(element("optgroup", { label: name }, ...chosen));
    }
    picker.addEventListener("change", () => { location.hash = picker.value; });
    walkable(index, [...index.querySelectorAll("a")]);
    index.hidden = picker.hidden = answers.length < 2;
}

fillIndex();
addThemes(document.querySelector(".theme"), () => shown?.redraw());
document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
});
addEventListener("hashchange", show);
show();
