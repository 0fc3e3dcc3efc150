// Examples: something to ask every model at a click.

const TEXTS = {
    TASK_TRANSLATION: [
        "Turn off the light before you leave the house.",
        "My sister is reading a book in the garden.",
        "I'd like to know where the old station is.",
    ],
    TASK_CLASSIFICATION: [
        "do i need a visa for my trip to india",
        "how do you say good morning in italian",
        "what colour is a polar bear's skin",
    ],
    TASK_TOKEN_CLASSIFICATION: [
        "Sarah moved from London to Paris in May.",
        "The Louvre bought a painting by Vermeer.",
        "Ana works for Siemens in Munich.",
    ],
    TASK_COMPLETION: [
        "The capital of France is",
        "Once upon a time there was a clockmaker who",
        "The keys to the old cabinet",
    ],
};

const CLOCK = "The clock in the tower was built in 1410 by Mikulas of Kadan. It stopped for some years, until a clockmaker from the old town repaired it.";
/** Questions, each with the text that holds its answer. */
const QUESTIONS = [
    { question: "Who built the clock?", text: CLOCK },
    { question: "When was the clock built?", text: CLOCK },
    { question: "Where was the man from who repaired it?", text: CLOCK },
];
/** What a scene is compared with, until something else is typed. */
const COMPARED = "a red star and a blue ring\na circle above a square\nthree shapes at night";

const SCENES = [
    { name: "star-and-ring.png", paper: ["#e9e4d8", "#d9d2c4"], shapes: [["red", "star", 0.27, 0.36, 0.17], ["blue", "ring", 0.72, 0.42, 0.16]] },
    { name: "circle-above-square.png", paper: ["#dfe6ea", "#cbd6dc"], shapes: [["orange", "circle", 0.52, 0.24, 0.1], ["purple", "square", 0.46, 0.7, 0.17]] },
    { name: "three-shapes.png", paper: ["#2c2f38", "#3a3e49"], shapes: [["green", "triangle", 0.24, 0.28, 0.16], ["cyan", "cross", 0.76, 0.24, 0.1], ["pink", "circle", 0.68, 0.72, 0.16]] },
];
