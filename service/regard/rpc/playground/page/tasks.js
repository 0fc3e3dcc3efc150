// Tasks: how each is asked, and where its answer lies.

const GENERATION = [["generation.num_beams", "Beams", "as the model asks"], ["generation.max_new_tokens", "Most tokens", ""]];

/**
 * What can be asked, in the order of the page. Of a task, `name` is what its button says and `shown` what the viewer
 * calls it; `path` is the API's method and `call` the client's; `streams` tells whether tokens come one by one. `gives`
 * are the fields that are filled, the image's or the text's unless it says otherwise, `text` is what the text is called,
 * and `lacking` what is said where there is none. `inputsOf` is the part of a request that holds what is given,
 * `argumentsOf` what a program gives, if that is not just these one by one. `resultOf` takes the result out of an event,
 * and `printed` is what a program would print of it. `numbers` are options: a field, its label and what is used without it.
 */
const ASKED = {
    TASK_TRANSLATION: {
        name: "Translate",
        shown: "translation",
        path: "regard.v1.TranslationService/StreamTranslate",
        call: "stream_translate",
        streams: true,
        text: "Text",
        lacking: "type a text first",
        inputsOf: ({ text }) => ({ texts: [text] }),
        resultOf: (event) => event.translation,
        printed: "text",
        numbers: GENERATION,
    },
    TASK_CAPTIONING: {
        name: "Caption",
        shown: "caption",
        path: "regard.v1.CaptionService/StreamCaption",
        call: "stream_caption",
        streams: true,
        inputsOf: ({ base64 }) => ({ images: [base64] }),
        resultOf: (event) => event.caption,
        printed: "text",
        numbers: GENERATION,
    },
    TASK_CLASSIFICATION: {
        name: "Classify",
        shown: "classification",
        path: "regard.v1.ClassificationService/Classify",
        call: "classify",
        streams: false,
        text: "Text",
        lacking: "type a text first",
        inputsOf: ({ text, base64 }) => ({ inputs: [base64 === undefined ? { text } : { image: base64 }] }),
        resultOf: (event) => event.results[0].classification,
        printed: "classes",
        numbers: [["top_k", "Classes", "5"]],
    },
    TASK_TOKEN_CLASSIFICATION: {
        name: "Classify tokens",
        shown: "token_classification",
        path: "regard.v1.ClassificationService/ClassifyTokens",
        call: "classify_tokens",
        streams: false,
        text: "Text",
        lacking: "type a text first",
        inputsOf: ({ text }) => ({ texts: [text] }),
        resultOf: (event) => event.results[0].classification,
        printed: "entities",
        numbers: [],
    },
    TASK_QUESTION_ANSWERING: {
        name: "Answer",
        shown: "answered_question",
        path: "regard.v1.QuestionAnsweringService/Answer",
        call: "answer",
        streams: false,
        gives: ["question", "text"],
        text: "Context",
        lacking: "type a context first",
        inputsOf: ({ question, text }) => ({ inputs: [{ question, context: text }] }),
        resultOf: (event) => event.results[0].answered,
        printed: "answers",
        numbers: [["top_k", "Answers", "1"], ["max_answer_tokens", "Most tokens", "15"]],
    },
    TASK_SIMILARITY: {
        name: "Compare",
        shown: "similarity",
        path: "regard.v1.SimilarityService/Compare",
        call: "compare",
        streams: false,
        gives: ["image", "text"],
        text: "Texts, one a line",
        lacking: "type texts first, one a line",
        inputsOf: ({ text, base64 }) => ({ images: [base64], texts: linesOf(text) }),
        argumentsOf: ({ text, name }) => [`[Path(${literal(name)})]`, list(linesOf(text).map(literal))],
        resultOf: comparedOf,
        printed: "images[0].scores",
        numbers: [],
    },
    TASK_TRANSCRIPTION: {
        name: "Transcribe",
        shown: "transcription",
        path: "regard.v1.TranscriptionService/StreamTranscribe",
        call: "stream_transcribe",
        streams: true,
        gives: ["sound"],
        inputsOf: ({ base64 }) => ({ inputs: [{ file: base64 }] }),
        resultOf: ({ transcription }) => transcription && transcribedOf(transcription),
        printed: "text",
        numbers: GENERATION,
    },
    TASK_COMPLETION: {
        name: "Complete",
        shown: "completion",
        path: "regard.v1.CompletionService/StreamComplete",
        call: "stream_complete",
        streams: true,
        text: "Prompt",
        lacking: "type a prompt first",
        inputsOf: ({ text }) => ({ prompts: [text] }),
        resultOf: (event) => event.completion,
        printed: "text",
        numbers: GENERATION,
    },
};
/** How many tokens a completion begins with: a prompt has no end of its own. */
const MOST_OF_A_COMPLETION = "40";

/** Adds up what the windows of a sound took: each is a generation of its own. */
function transcribedOf(transcription) {
    const sum = (of) => transcription.windows.reduce((total, window) => total + of(window), 0);
    const timing = Object.fromEntries(["queue_s", "encode_s", "decode_s"].map((part) => [part, sum((window) => window.timing[part])]));
    return { ...transcription, target_tokens: sum((window) => window.target_tokens), timing };
}

function linesOf(text) {
    return text.split("\n").map((line) => line.trim()).filter(Boolean);
}

/** Takes an image beside texts: the likeliest first, and the attention of the image, or if that wasn't asked for of the likeliest. */
function comparedOf({ images: [{ image }], texts }, given) {
    const lines = linesOf(given.text);
    const ranked = image.scores.toSorted((one, other) => other.logit - one.logit);
    const best = ranked[0].text_index;
    return {
        classes: ranked.map(({ text_index: place, probability }) => ({ label: lines[place], probability })),
        attention: image.attention ?? texts[best].text.attention,
        read: lines[best],
        timing: image.timing,
    };
}
