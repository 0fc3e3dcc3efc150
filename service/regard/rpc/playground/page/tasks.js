// Tasks: how each is asked, and where its answer lies.

const GENERATION = [["generation.num_beams", "Beams", "as the model asks"], ["generation.max_new_tokens", "Most tokens", ""]];

/**
 * What can be asked, in the order of the page. Of a task, `name` is what its button says and `shown` what the viewer
 * calls it; `path` is the API's method and `call` the client's; `streams` tells whether tokens come one by one. `text` is
 * what the text is called that is given. `inputsOf` is the part of a request that holds what is given, `resultOf` takes
 * the result out of an event, and `printed` is what a program would print of it. `numbers` are options: a field, its label
 * and what is used without it.
 */
const ASKED = {
    TASK_TRANSLATION: {
        name: "Translate",
        shown: "translation",
        path: "regard.v1.TranslationService/StreamTranslate",
        call: "stream_translate",
        streams: true,
        text: "Text",
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
        text: "Context",
        inputsOf: ({ question, text }) => ({ inputs: [{ question, context: text }] }),
        resultOf: (event) => event.results[0].answered,
        printed: "answers",
        numbers: [["top_k", "Answers", "1"], ["max_answer_tokens", "Most tokens", "15"]],
    },
    TASK_COMPLETION: {
        name: "Complete",
        shown: "completion",
        path: "regard.v1.CompletionService/StreamComplete",
        call: "stream_complete",
        streams: true,
        text: "Prompt",
        inputsOf: ({ text }) => ({ prompts: [text] }),
        resultOf: (event) => event.completion,
        printed: "text",
        numbers: GENERATION,
    },
};
/** How many tokens a completion begins with: a prompt has no end of its own. */
const MOST_OF_A_COMPLETION = "40";
