// A notebook's frame: one answer.

const { answers: [answer] } = JSON.parse(document.getElementById("document").textContent);
const shown = showAnswer(answer);
document.querySelector("main").append(shown.root);
shown.redraw();
systemIsDark.addEventListener("change", shown.redraw);
