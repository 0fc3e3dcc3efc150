// Snippets: a request as what a shell or a program would send.

const MOST_BYTES = 50_331_648;

const METHODS = {
    TASK_TRANSLATION: { path: "regard.v1.TranslationService/StreamTranslate", call: "stream_translate", streams: true },
    TASK_CAPTIONING: { path: "regard.v1.CaptionService/StreamCaption", call: "stream_caption", streams: true },
    TASK_CLASSIFICATION: { path: "regard.v1.ClassificationService/Classify", call: "classify", streams: false },
};

/** Returns the command that sends a request with grpcurl; an image comes from its file. */
function asGrpcurl({ method, request, given }, target) {
    const call = `grpcurl -plaintext -max-msg-sz ${MOST_BYTES}`;
    if (!given.picture) return `${call} -d ${quoted(compact(JSON.stringify(request, null, 2)))} \\\n  ${target} ${method.path}`;
    const json = compact(JSON.stringify(request, (name, value) => (value === given.base64 ? "" : value), 2));
    const at = json.indexOf('""', json.search(/"images?": /)) + 1;
    const parts = [`printf %s ${quoted(json.slice(0, at))}`, `base64 < ${quoted(given.name)} | tr -d '\\n'`, `printf %s ${quoted(json.slice(at))}`];
    return `{ ${parts.join("\n  ")}\n} | ${call} -d @ \\\n  ${target} ${method.path}`;
}

/** Puts lists of one text or number on one line; within a text of JSON no line ends. */
function compact(json) {
    return json.replace(/\[\n\s*("(?:[^"\\]|\\.)*"|\d+)\n\s*\]/g, "[$1]");
}

/** Returns the Python program that sends a request with Regard's client. */
function asPython({ method, request, given }, target) {
    const { attention, generation = {} } = request;
    const input = given.picture ? `Path(${literal(given.name)})` : literal(given.text);
    const options = { model: request.model_name, version: request.model_version, top_k: request.top_k, ...generation };
    const named = Object.entries(options).filter(([, value]) => value !== undefined).map(([name, value]) => `${name}=${literal(value)}`);
    if (attention) named.push(`attention=AttentionOptions(${attentionArguments(attention).join(", ")})`);
    const lines = [input, ...named].map((line) => `        ${line},`).join("\n");
    const result = method.streams ? "*deltas, answer" : "answer";
    const path = given.picture ? "from pathlib import Path\n\n" : "";
    const shown = method.streams ? "answer.text" : "answer.classes";
    return `${path}from regard.client import ${attention ? "AttentionOptions, " : ""}Client\n\nwith Client(${literal(target)}) as client:\n    ${result} = client.${method.call}(\n${lines}\n    )\nprint(${shown})\n`;
}

function attentionArguments({ kinds, stacks, layers, heads, reduction, granularity }) {
    const words = (names, type) => names && list(names.map((name) => literal(word(name, type))));
    return Object.entries({
        kinds: words(kinds, "ATTENTION_KIND"),
        stacks: words(stacks, "ATTENTION_STACK"),
        layers: layers && list(layers),
        heads: heads && list(heads),
        reduction: reduction && literal(word(reduction, "ATTENTION_REDUCTION")),
        granularity: granularity && literal(word(granularity, "ATTENTION_GRANULARITY")),
    }).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
}

function list(values) {
    return `[${values.join(", ")}]`;
}

/** Writes a text or a number as Python does: a string of JSON is one of Python's too. */
function literal(value) {
    return JSON.stringify(value);
}

/** Quotes a text for a shell. */
function quoted(text) {
    return `'${text.replaceAll("'", "'\\''")}'`;
}
