// Events: a method of the API is asked in proto3 JSON, and answers in lines of it.

const BROKEN_OFF = "the answer broke off: the server can’t be reached any more";

/** Why there is no answer: `code` is gRPC's, `field` names what is at fault, if something is. */
class Problem extends Error {
    constructor({ code, message, field, retry_after_s: retryAfter }) {
        super(retryAfter ? `${message} (again in ${Math.ceil(retryAfter)} s)` : message);
        this.code = code;
        this.field = field || fieldOf(message);
    }
}

/**
 * Yields the events of a call, as they come. Aborting `signal` cancels it on the server too. Throws a `Problem`
 * where the answer ends before its last event, which a connection that breaks off does as quietly as a whole one.
 */
async function* ask(method, request, signal) {
    const asked = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request), signal };
    const response = await fetch(`playground/${method}`, asked).catch(unlessAborted("the server can’t be reached"));
    let [rest, whole] = ["", false];
    for await (const chunk of chunksOf(response.body.pipeThrough(new TextDecoderStream()))) {
        const lines = (rest + chunk).split("\n");
        rest = lines.pop();
        for (const line of lines) {
            const event = read(line, response);
            whole = event.delta === undefined;
            yield event;
        }
    }
    if (!whole) throw unreadable(response);
}

function read(line, response) {
    const event = parse(line, response);
    const results = [event.results, event.images, event.texts].flatMap((some) => some ?? []);
    const failure = event.error ?? event.failure ?? results.find((one) => one.failure)?.failure;
    if (failure) throw new Problem(failure);
    return event;
}

function parse(line, response) {
    try {
        return JSON.parse(line);
    } catch {
        throw unreadable(response);
    }
}

/** Why an answer is none: not all of it came, or something between here and the server has answered. */
function unreadable({ ok, status, statusText }) {
    return new Problem({ code: "UNAVAILABLE", message: ok ? BROKEN_OFF : `the server’s answer is ${status} ${statusText}`.trim() });
}

function unlessAborted(message) {
    return (error) => { throw error.name === "AbortError" ? error : new Problem({ code: "UNAVAILABLE", message }); };
}

async function* chunksOf(stream) {
    const reader = stream.getReader();
    const next = () => reader.read().catch(unlessAborted(BROKEN_OFF));
    try {
        for (let piece = await next(); !piece.done; piece = await next()) yield piece.value;
    } finally {
        reader.releaseLock();
    }
}

/** Returns the field that a message of the server begins with, as in "generation.num_beams is …"; "" for none. */
function fieldOf(message) {
    return /^[a-z_]+(\[\d+\])?(\.[a-z_]+(\[\d+\])?)*(?=[: ])/.exec(message)?.[0] ?? "";
}
