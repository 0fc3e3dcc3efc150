// Snippets: a request as what a shell or a program would send.

const MOST_BYTES = 50_331_648;

/** Returns the command that sends a request with grpcurl; an image or a sound comes from its file. */
function asGrpcurl({ asked: { path }, request, given }, target) {
    const call = `grpcurl -plaintext -max-msg-sz ${MOST_BYTES}`;
    if (given.base64 === undefined) return `${call} -d ${quoted(compact(JSON.stringify(request, null, 2)))} \\\n  ${target} ${path}`;
    const json = compact(JSON.stringify(request, (name, value) => (value === given.base64 ? "" : value), 2));
    const at = json.indexOf('""', json.search(/"(images?|file)": /)) + 1;
    const parts = [`printf %s ${quoted(json.slice(0, at))}`, `base64 < ${quoted(given.name)} | tr -d '\\n'`, `printf %s ${quoted(json.slice(at))}`];
    return `{ ${parts.join("\n  ")}\n} | ${call} -d @ \\\n  ${target} ${path}`;
}

/** Puts lists of one text or number on one line; within a text of JSON no line ends. */
function compact(json) {
    return json.replace(/\[\n\s*("(?:[^"\\]|\\.)*"|\d+)\n\s*\]/g, "[$1]");
}

/** Returns the Python program that sends a request with Regard's client. */
function asPython({ asked, request, given }, target) {
    const { attention, generation = {} } = request;
    const inputs = asked.argumentsOf?.(given) ?? (given.base64 !== undefined ? [`Path(${literal(given.name)})`] : [given.question, given.text].filter((text) => text !== undefined).map(literal));
    const { model_name: model, model_version: version, top_k, max_answer_tokens, templated } = request;
    const options = { model, version, top_k, max_answer_tokens, templated, ...generation };
    const named = Object.entries(options).filter(([, value]) => value !== undefined).map(([name, value]) => `${name}=${literal(value)}`);
    if (attention) named.push(`attention=AttentionOptions(${attentionArguments(attention).join(", ")})`);
    const lines = [...inputs, ...named].map((line) => `        ${line},`).join("\n");
    const result = asked.streams ? "*deltas, answer" : "answer";
    const path = given.base64 !== undefined ? "from pathlib import Path\n\n" : "";
    return `${path}from regard.client import ${attention ? "AttentionOptions, " : ""}Client\n\nwith Client(${literal(target)}) as client:\n    ${result} = client.${asked.call}(\n${lines}\n    )\nprint(answer.${asked.printed})\n`;
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

/** Writes a text, a number or true as Python does: a string of JSON is one of Python's too. */
function literal(value) {
    return value === true ? "True" : JSON.stringify(value);
}

/** Quotes a text for a shell. */
function quoted(text) {
    return `'${text.replaceAll("'", "'\\''")}'`;
}
